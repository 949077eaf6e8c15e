"""Atomic writes, directories by hard links, and content hashes."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from cascade.errors import CascadeError
from cascade.utils.progress import say

UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
"""Errors of linking after which the file can be copied."""


FULL = {os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
"""Messages of the system for a full disk; some libraries keep only the message."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Raises CascadeError naming `path` where the block cannot write there because of a full disk or a quota."""
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
    """Write to a temporary path, flush to disk, rename to `path`. Raises CascadeError where the disk is full."""
    with _temporary_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        _flush(file)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """A text file to write to; it is moved to `path` when the block ends without an error."""
    with _temporary_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file
        _flush(file)


@contextmanager
def _temporary_path(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` when the block ends without an error, and removed otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def publish_directory(source: Path, target: Path) -> None:
    """Move a finished directory to `target`, replacing it. Others may read it as far as the umask lets them."""
    _make_readable(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)


def _make_readable(directory: Path) -> None:
    """safetensors makes files, and tempfile directories, that only their owner can read: not a vLLM server of another
    user, for one."""
    probe = directory / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink() and not path.stat().st_mode & 0o044:
            path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def link_directory(source: Path, target: Path) -> None:
    """Make `target` a directory of the same files, as hard links.

    Where links are not possible (another device), the files are copied, with a message.
    """
    copied: OSError | None = None
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        copied = link_file(path, target / path.relative_to(source)) or copied
    if copied is not None:
        say(f"{target}: files of {source} were copied, not linked: {copied.strerror}")


def link_file(source: Path, target: Path) -> OSError | None:
    """Make `target` a hard link to the file; where that is not possible, copy it and return the error."""
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
    """SHA-256 of the inputs as JSON, hex."""
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
