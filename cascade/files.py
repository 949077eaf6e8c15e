"""Files that are never seen half-written, and the hashes that identify them."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cascade.errors import CascadeError
from cascade.progress import say

UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
"""Why a file system makes no hard link, though the file could be copied."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to disk, rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """A text file to write bit by bit; it appears under `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises CascadeError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CascadeError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise CascadeError(f"{path}: not JSON ({error})") from None


def publish_directory(finished: Path, target: Path) -> None:
    """Move a finished directory to where others look for it, replacing what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(finished, target)
    shutil.rmtree(old, ignore_errors=True)


def link_directory(source: Path, target: Path) -> None:
    """Make `target` a directory of the same files, as hard links: no bytes are copied, where the file system can.

    Where it cannot (another device, links refused), the files are copied, and that is said.
    """
    copied: OSError | None = None
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        made = target / path.relative_to(source)
        made.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), made)
        except OSError as error:
            if error.errno not in UNLINKABLE:
                raise
            shutil.copy2(path, made)
            copied = error
    if copied is not None:
        say(f"{target}: files of {source} were copied, not linked: {copied.strerror}")


def hash_file(path: Path) -> str:
    """SHA-256 of the content, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_directory(directory: Path) -> str:
    """SHA-256 over the relative names and contents of every file in the directory, hex."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def read_jsonl(path: Path) -> Iterator[dict]:
    """The objects of a JSON Lines file. Raises CascadeError naming file and line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise CascadeError(f"{path}:{number}: not JSON ({error})") from None


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fingerprint(inputs: dict[str, Any]) -> str:
    """SHA-256 over everything the result depends on, hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
