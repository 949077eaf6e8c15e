"""Files that are never seen half-written, and the hashes that identify them."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from cascade.errors import CascadeError
from cascade.utils.progress import say

UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
"""Why a file system makes no hard link, though the file could be copied."""


FULL = {os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
"""What the system says where there is no room: by these words alone, some libraries pass it on."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Raises CascadeError naming `path` where the block, which writes there, finds no room: a full disk, a quota."""
    try:
        yield
    except CascadeError:
        raise
    except Exception as error:
        if not (reason := next((words for words in FULL if words in str(error)), None)):
            raise
        remedy = "make room and run it again: it goes on from what was saved last"
        raise CascadeError(f"{path}: cannot be written ({reason}); {remedy}") from None


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to disk, rename over it. Raises CascadeError where the disk is full."""
    with _aside(path) as aside, open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        _flush(file)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """A text file to write bit by bit; it appears under `path` when the block ends without an error."""
    with _aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        yield file
        _flush(file)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when the block ends without an error. Nothing is left of it otherwise."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


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
        copied = link_file(path, target / path.relative_to(source)) or copied
    if copied is not None:
        say(f"{target}: files of {source} were copied, not linked: {copied.strerror}")


def link_file(source: Path, target: Path) -> OSError | None:
    """Make `target` a hard link to the file; where the file system makes none, a copy, and return why."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        with room_for(target):
            shutil.copy2(source, target)
        return error
    return None


def fingerprint(inputs: dict[str, Any]) -> str:
    """SHA-256 over everything the result depends on, hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


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
