"""A Hub on this machine: what huggingface_hub asks of one, of repositories of a few small files, read or published."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "c" * 40
API = re.compile(
    r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/]+)(?:/(.*))?)?"
)
FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Hub"

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        body = self._body()
        path = unquote(urlparse(self.path).path)
        for name, status in self.server.status.items():
            if f"/{name}/" in f"{path}/":
                return self._answer(status, error={401: "RepoNotFound", 403: "GatedRepo"}.get(status))
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := API.fullmatch(path):
            self._api(body, *found.groups())
        elif found := FILE.fullmatch(path):
            kind, name, _, file = found.groups()
            self._file("datasets" if kind else "models", name, file)
        else:
            self._answer(404)

    do_HEAD = do_POST = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _create(self, asked: dict[str, Any]) -> None:
        self.server.created.append(asked)
        name = f"{asked['organization']}/{asked['name']}"
        (self.server.root / f"{asked.get('type') or 'model'}s" / name).mkdir(parents=True, exist_ok=True)
        self._json({"url": f"{self.server.url}/{name}"})

    def _api(
        self, body: bytes, kind: str, name: str, what: str | None, revision: str | None, under: str | None
    ) -> None:
        folder = self.server.root / kind / name
        if not folder.is_dir():
            return self._answer(404, error="RepoNotFound")
        if revision not in (None, "main", COMMIT):
            return self._answer(404, error="RevisionNotFound")
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if what == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else re.findall(r"paths=([^&]+)", body.decode())
            return self._json([_entry(file, files[file]) for file in map(unquote, wanted) if file in files])
        if what == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json({"files": [{"path": file["path"], **modes} for file in json.loads(body)["files"]]})
        if what == "commit":
            return self._commit(folder, body)
        if what == "tree":
            recursive = "recursive=true" in self.path.lower()
            return self._json(_tree(folder / (under or ""), folder, recursive))
        siblings = [{"rfilename": file, "size": path.stat().st_size} for file, path in files.items()]
        self._json({"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings})

    def _commit(self, folder: Path, body: bytes) -> None:
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append(value["summary"])
            elif line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
        self._json(
            {"commitUrl": f"{self.server.url}/{folder.parent.name}/{folder.name}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def _file(self, kind: str, name: str, file: str) -> None:
        path = self.server.root / kind / name / file
        if not path.is_file():
            return self._answer(404, error="EntryNotFound")
        content, start = path.read_bytes(), 0
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(found[1])
            content = content[: int(found[2]) + 1] if found[2] else content
        self.send_response(206 if found else 200)
        self.send_header("ETag", f'"{_oid(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{path.stat().st_size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if file in self.server.broken:
            self.wfile.write(content[start : start + 10])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes = b"", error: str | None = None) -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        """Method and path of each request."""
        self.tokens: set[str | None] = set()
        self.created: list[dict[str, Any]] = []
        self.commits: list[str] = []
        """Their first lines."""
        self.status: dict[str, int] = {}
        """Part of a path, such as a repository → the status with which it answers instead; api: any but a file's."""
        self.broken: set[str] = set()
        """Files of which ten bytes are sent before the connection ends."""


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Serves root/models/ORG/NAME and root/datasets/ORG/NAME; `url` is what HF_ENDPOINT is to be."""
    server = Hub(root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _tree(under: Path, folder: Path, recursive: bool) -> list[dict[str, object]]:
    found = []
    for path in sorted(under.rglob("*") if recursive else under.iterdir()):
        name = path.relative_to(folder).as_posix()
        found.append(_entry(name, path) if path.is_file() else {"type": "directory", "path": name, "oid": "0"})
    return found


def _entry(file: str, path: Path) -> dict[str, object]:
    return {"type": "file", "path": file, "size": path.stat().st_size, "oid": _oid(path)}


def run(script: str, names: list[str], server: Hub, home: Path) -> dict[str, Any]:
    """What the script's `answer(name)` returns for each name, in a process with this Hub. Retries do not wait."""
    code = f"import json, sys, time\ntime.sleep = lambda _: None\n{dedent(script)}\n"
    code += "print(json.dumps({name: answer(name) for name in sys.argv[1:]}))"
    environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *names], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
