"""A server that speaks the OpenAI chat API on loopback and answers as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cascade.schema import PreferenceEndpoint

Answer = Callable[[dict], str | bytes | int]
"""From a request's body: the text of the completion, or a whole body, or an HTTP status."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def endpoint(self, **settings) -> PreferenceEndpoint:
        return PreferenceEndpoint(url=self.url, model="judge", **{"timeout_seconds": 5, **settings})


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body | {"path": self.path})
            server.headers.append(dict(self.headers))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            answer = server.answer(body)
        finally:
            with server.lock:
                server.at_once -= 1
        if isinstance(answer, str):
            message = {"role": "assistant", "content": answer}
            answer = json.dumps({"choices": [{"message": message}], "usage": USAGE}).encode()
        status, content = (answer, b"the server says no") if isinstance(answer, int) else (200, answer)
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # The client has gone.

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def verdict(score_1: float, score_2: float, ranking: float) -> str:
    return "Both are fine. " + json.dumps({"score_1": score_1, "score_2": score_2, "ranking": ranking})
