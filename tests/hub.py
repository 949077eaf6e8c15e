"""A Hub on loopback that speaks what publishing needs: a repository, its files, the check of a card, a commit."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """`files`: the repository's content. `refuse` is a status with which it answers everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuse: int | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self._begun()
        if hub is None:
            return
        if "/tree/" in self.path:
            self._answer([{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in hub.files.items()])
        else:
            self._answer({"id": "org/name", "siblings": [{"rfilename": path} for path in hub.files]})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks()
        hub = self._begun()
        if hub is None:
            return
        if self.path == "/api/repos/create":
            hub.made.append(json.loads(body))
            self._answer({"url": f"{hub.address}/org/name"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            self._commit(hub, body)
        else:
            self._answer({"error": "unknown"}, 404)

    def _commit(self, hub: Hub, body: bytes) -> None:
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.commits.append(value["summary"])
            elif line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del hub.files[value["path"]]
        self._answer({"commitUrl": f"{hub.address}/org/name/commit/{'1' * 40}", "commitOid": "1" * 40})

    def _begun(self) -> Hub | None:
        hub = self.server
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuse is not None:
            self._answer({"error": "refused"}, hub.refuse)
            return None
        return hub

    def _chunks(self) -> bytes:
        found = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return found

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
