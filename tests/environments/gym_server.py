"""A server that speaks the protocol of NeMo Gym's resources servers, and misbehaves where a row asks it to."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REQUIRED = {"id", "object", "created_at", "model", "output", "parallel_tool_calls", "tool_choice", "tools"}
"""What OpenAI's Response object cannot lack; NeMo Gym's servers refuse it otherwise."""

ANSWERS: dict[str, tuple[int, bytes]] = {
    "500": (500, b"Internal  Server\nError"),
    "404": (404, b'{"detail": "Not Found"}'),
    "garbage": (200, b"<html>reward: 1</html>"),
    "deep": (200, b"[" * 100_000),
    "empty": (200, b""),
    "list": (200, b"[1.0]"),
    "no reward": (200, b'{"response": {}}'),
    "text": (200, b'{"reward": "1.0"}'),
    "true": (200, b'{"reward": true}'),
    "null": (200, b'{"reward": null}'),
    "nan": (200, b'{"reward": NaN}'),
    "inf": (200, b'{"reward": 1e999}'),
    "high": (200, b'{"reward": 1.5}'),
    "low": (200, b'{"reward": -1}'),
    "judge": (200, b'{"reward": 0.0, "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": "HTTP 503"}'),
}
"""What the server answers to a row with this `mood`."""


class GymServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.bodies: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        """Requests by mood."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    @contextmanager
    def noting(self, body: dict[str, Any]) -> Iterator[int]:
        """Yields which request of its mood this is."""
        with self._lock:
            self.bodies.append(body)
            self.asked[body.get("mood", "")] += 1
            number = self.asked[body.get("mood", "")]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield number
        finally:
            with self._lock:
                self._at_once -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: GymServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.noting(body) as number:
            if self.path != "/verify":
                self._answer(*ANSWERS["404"])
            elif problem := _problem(body):
                self._answer(422, json.dumps({"detail": problem}).encode())
            else:
                self._in_mood(body, number)

    def _in_mood(self, body: dict[str, Any], number: int) -> None:
        mood = body.get("mood", "")
        if mood in ANSWERS:
            self._answer(*ANSWERS[mood])
        elif mood in ("503 twice", "429 twice") and number <= 2:
            self._answer(int(mood[:3]), b"busy")
        elif mood == "hang up" or (mood == "hang up twice" and number <= 2):
            # A reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif mood == "badly packed":
            self._answer(200, b"this is not gzip", {"Content-Encoding": "gzip"})
        elif mood == "drip":
            self._start(200, 10_000)
            for _ in range(10_000):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.02)
        else:
            time.sleep(body.get("seconds", 0))
            text = "".join(
                part["text"]
                for item in body["response"]["output"]
                if item["type"] == "message"
                for part in item["content"]
            )
            reward = float(text == body["expected_answer"])
            self._answer(200, json.dumps({**body, "reward": reward, "extracted_answer": text}).encode())

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self._start(status, len(content), headers)
        self.wfile.write(content)

    def _start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""


def _problem(body: dict[str, Any]) -> str | None:
    if "input" not in body.get("responses_create_params", {}):
        return "responses_create_params: Field required"
    missing = REQUIRED - body.get("response", {}).keys()
    return f"response.{sorted(missing)[0]}: Field required" if missing else None


@contextmanager
def running() -> Iterator[GymServer]:
    with GymServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
