"""What vLLM's server does, as far as the sampler sees it: the same routes, and deaths on demand."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cascade.utils.seeds import derive_seed


def tokens(seed: int, limit: int) -> list[int]:
    """What any server samples for a seed: one to `limit` tokens."""
    return [derive_seed(seed, i) % 50 for i in range(1 + seed % limit)]


class FakeVLLM:
    """A server process. A response waits until `gate` is set; log-probabilities are minus the length of the name of
    the weights that it has, so a test sees which these were."""

    def __init__(self, port: int = 0):
        self.gate = threading.Event()
        self.gate.set()
        self.weights = "the ones it was started with"
        self.reloads = 0
        self.asked: list[dict] = []
        self.status: dict[str, int] = {}
        """Path → HTTP status to fail with."""
        self._connections: list[socket.socket] = []
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As SIGKILL does: nothing listens, every connection is gone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # It was closed before.
                connection.shutdown(socket.SHUT_RDWR)
        self.gate.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True
    fake: FakeVLLM

    def process_request(self, request, client_address) -> None:
        self.fake._connections.append(request)
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._reply({} if self.path == "/health" else None)

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path == "/collective_rpc" and self.path not in fake.status:
            assert body["method"] == "reload_weights"
            fake.weights = body["kwargs"]["weights_path"]
            fake.reloads += 1
            self._reply({"results": [None]})
        elif self.path == "/v1/completions":
            fake.asked.append(body)
            fake.gate.wait()
            ids = tokens(body["seed"], body["max_tokens"])
            reason = "stop" if ids[-1] in body["stop_token_ids"] else "length"
            log_probs = {"token_logprobs": [-float(len(fake.weights))] * len(ids)}
            self._reply({"choices": [{"token_ids": ids, "logprobs": log_probs, "finish_reason": reason}]})
        else:
            self._reply({} if self.path in ("/reset_prefix_cache", "/collective_rpc") else None)

    def _reply(self, content: dict | None) -> None:
        status = self.server.fake.status.get(self.path, 404 if content is None else 200)
        body = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # The client has gone, or this server has.

    def log_message(self, *_: object) -> None:
        pass
