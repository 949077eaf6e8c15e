"""Runs one command, or two connected commands, through the launcher."""

import atexit
import contextlib
import fcntl
import functools
import marshal
import os
import platform
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from cascade.errors import SandboxError
from cascade.sandbox import seccomp
from cascade.sandbox.program import MIB, Execution, Limits, Program

PYTHON = (os.path.realpath(sys.executable), "-I", "-S")
"""Command that runs a Python program with the standard library only: no packages, no environment variables, and half
the usual start-up time."""

_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_SCRATCH = "/scratch"
_ENVIRONMENT = {
    "PATH": f"{os.path.dirname(PYTHON[0])}:/usr/local/bin:/usr/bin:/bin",
    "HOME": _SCRATCH,
    "TMPDIR": _SCRATCH,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}
"""Of every command."""
_NOBODY = 65534
"""User id of commands that root starts: the limit on processes does not apply to root."""
_GRACE_SECONDS = 15.0
"""Time that the launcher may take in addition to the command's wall time."""
_OLDEST_KERNEL = (5, 14)
"""The first kernel that counts processes separately in each user namespace."""
REMEDY = (
    "Allow user namespaces without privileges (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined), or use another machine"
)
"""What to do where a mechanism is missing."""
_DEFAULT = Limits()
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def execute(
    command: Sequence[str],
    files: Mapping[str, str | bytes],
    *,
    stdin: str = "",
    limits: Limits = _DEFAULT,
    keep: Sequence[str] = (),
    roots: Sequence[str] = (),
) -> Execution:
    """Run `command` in a new scratch directory that contains `files`, and return its output.

    `keep` names files of the scratch directory to return; `roots` names its directories that the command also finds
    at the root (`app` as `/app`). Thread-safe. Raises SandboxError if this machine lacks a mechanism of the sandbox
    (`missing`), and if the sandbox fails.
    """
    require()
    links = tuple(_inside(name) for name in roots)
    with _slots, _Task(Program(command, files, limits), keep, _bytes(stdin)) as task, _launcher(links) as launcher:
        task.start(launcher)
        return task.result()


def connect(asker: Program, answerer: Program) -> tuple[Execution, Execution | None]:
    """Run two commands in separate sandboxes, with the standard output of each as the other's standard input.

    Returns when the asker has ended; an answerer that still runs a second later is killed, and its result is None.
    Raises as `execute` does.
    """
    require()
    with _slots, ExitStack() as stack:
        asked, answering = (stack.enter_context(_Task(program)) for program in (asker, answerer))
        for one, other in ((asked, answering), (answering, asked)):
            reads, writes = os.pipe()
            one.replace(1, writes)
            other.replace(0, reads)
        for task in (asked, answering):
            task.start(stack.enter_context(_launcher()))
            # An end that stays open here would hide from the one that the other has gone.
            task.give_away()
        execution = asked.result()
        try:
            return execution, answering.result(1.0)
        except TimeoutError:
            answering.launcher.stop()
            return execution, None


def missing() -> list[str]:
    """Descriptions of the mechanisms that this machine lacks; empty if programs can be sandboxed."""
    return list(_missing())


def require() -> None:
    """Raise SandboxError if a mechanism is missing."""
    lacks = _missing()
    if lacks:
        raise SandboxError(
            f"nothing was run, because this machine cannot confine programs: {'; '.join(lacks)}. {REMEDY}"
        )


@functools.cache
def _missing() -> tuple[str, ...]:
    if platform.system() != "Linux":
        return ("it is not Linux",)
    if platform.machine() not in seccomp.MACHINES:
        return (f"it has no list of system calls for {platform.machine()} (there are {', '.join(seccomp.MACHINES)})",)
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release < _OLDEST_KERNEL:
        return (f"it needs Linux {'.'.join(map(str, _OLDEST_KERNEL))} or later (this is {platform.release()})",)
    try:
        probe = _Launcher({"probe": True})
        lacks = probe.receive()["lacks"]
        probe.stop()
        if lacks:
            return tuple(f"it has no {name} namespaces for this user" for name in lacks)
        with _Task(Program([*PYTHON, "-c", "pass"])) as task, _launcher() as launcher:
            task.start(launcher)
            trial = task.result()
    except SandboxError as error:
        return (str(error),)
    return () if trial.exit_code == 0 else (f"Python does not start in the sandbox: {trial.stderr.strip()[-200:]}",)


class _Launcher:
    """A launcher process, which runs one command after another."""

    def __init__(self, settings: dict[str, Any]):
        self._channel, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [*PYTHON, _LAUNCHER],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        theirs.close()
        self.roots = tuple(settings.get("roots", ()))
        self.stopped = False
        self.send(settings, _GRACE_SECONDS)

    def send(self, message: dict[str, Any], seconds: float, streams: Sequence[int] = ()) -> None:
        """Send a (short) message, and `streams` (descriptors). `seconds`: limit for the answer."""
        data = marshal.dumps(message)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._channel, [len(data).to_bytes(8, "little")], streams)
            self._channel.sendall(data)
        self.deadline = time.monotonic() + seconds

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The answer. Raises SandboxError, and TimeoutError after `seconds`, if given."""
        deadline = self.deadline if seconds is None else time.monotonic() + seconds
        try:
            length = int.from_bytes(self._read(8, deadline), "little")
            answer: dict[str, Any] = marshal.loads(self._read(length, deadline))
        except TimeoutError:
            if seconds is not None:
                raise
            raise SandboxError("the sandbox did not end its command in time") from None
        if "broken" in answer:
            raise SandboxError(f"the sandbox could not be set up: {answer['broken']}")
        return answer

    def _read(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while len(data) < count:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError
            with contextlib.suppress(ConnectionResetError):
                if part := self._channel.recv(min(count - len(data), MIB)):
                    data += part
                    continue
            raise SandboxError("the sandbox's launcher ended without an answer")
        return bytes(data)

    def stop(self) -> None:
        """Kill the launcher. Process 1 of its PID namespace dies with it, and the kernel kills the rest."""
        self.stopped = True
        self.process.kill()
        self.process.wait()
        self._channel.close()


_slots = threading.BoundedSemaphore(os.cpu_count() or 1)
"""With more executions than processors they would only use up each other's wall time."""
_idle: list[_Launcher] = []
_MOST_IDLE = 2 * (os.cpu_count() or 1)
"""Two for each pair of connected commands."""


@contextmanager
def _launcher(roots: tuple[str, ...] = ()) -> Iterator[_Launcher]:
    """An idle launcher with these links in its root, or a new one. It is stopped after an error, else reused."""
    for launcher in reversed(_idle):
        if launcher.roots == roots:
            try:
                _idle.remove(launcher)
                break
            except ValueError:
                continue  # another thread was faster
    else:
        launcher = _Launcher(_settings(roots))
        try:
            launcher.receive()
        except BaseException:
            launcher.stop()
            raise
    try:
        yield launcher
    except BaseException:
        launcher.stop()
        raise
    if not launcher.stopped:
        _idle.append(launcher)
        while len(_idle) > _MOST_IDLE:
            with contextlib.suppress(IndexError):
                _idle.pop(0).stop()


@atexit.register
def _stop_all() -> None:
    while _idle:
        _idle.pop().stop()


# A forked child must not use its parent's pipes.
os.register_at_fork(after_in_child=_idle.clear)


def _settings(roots: Sequence[str]) -> dict[str, Any]:
    """What is the same for all commands of a launcher."""
    prefix = os.path.realpath(sys.base_prefix)
    python = () if f"{prefix}/".startswith("/usr/") else (prefix,)
    return {
        "probe": False,
        "python": list(PYTHON),
        "readable": [path for path in (*_SYSTEM, *_DEVICES, *python) if os.path.lexists(path)],
        "scratch": _SCRATCH,
        "roots": list(roots),
        "become": _NOBODY if _can_become_nobody() else None,
        "seccomp": seccomp.compile_filter(platform.machine()),
    }


class _Task:
    """A command on its way. What goes in and comes out lies in files in memory (`man 2 memfd_create`), of which the
    launcher passes the descriptors on without reading them."""

    def __init__(self, program: Program, keep: Sequence[str] = (), stdin: bytes = b""):
        self._limits, self._keep = program.limits, [_inside(path) for path in keep]
        request = {
            "command": list(program.command),
            "files": {_inside(path): _bytes(content) for path, content in program.files.items()},
            "keep": self._keep,
        }
        self._request = _file(marshal.dumps(request))
        self.streams = [_file(stdin), _file(), _file()]
        """Its standard input, output and error."""

    def __enter__(self) -> "_Task":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._request, *self.streams):
            os.close(descriptor)

    def start(self, launcher: "_Launcher") -> None:
        self.launcher = launcher
        message = {**asdict(self._limits), "keeps": bool(self._keep)}
        launcher.send(message, self._limits.wall_seconds + _GRACE_SECONDS, (self._request, *self.streams))

    def replace(self, number: int, descriptor: int) -> None:
        before, self.streams[number] = self.streams[number], descriptor
        os.close(before)

    def give_away(self) -> None:
        """Close the pipes among the streams here."""
        given, self.streams = self.streams[:2], self.streams[2:]
        for descriptor in given:
            os.close(descriptor)

    def result(self, seconds: float | None = None) -> Execution:
        """Raises SandboxError, and TimeoutError after `seconds`, if given."""
        files: dict[str, bytes] = self.launcher.receive(seconds) if self._keep else {}
        answer = self.launcher.receive(seconds)
        room = self._limits.output_bytes
        *_, stderr = self.streams
        outputs = []
        for descriptor in (self.streams[1], stderr) if len(self.streams) == 3 else (None, stderr):
            outputs.append(b"" if descriptor is None else os.pread(descriptor, room, 0))
            room -= len(outputs[-1])
        stdout, errors = (output.decode(errors="replace") for output in outputs)
        return Execution(**answer, stdout=stdout, stderr=errors, files=files)


def _file(content: bytes | None = None) -> int:
    """A file in memory; with content, which may be none, nobody can change it."""
    descriptor = os.memfd_create("stream", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if content is not None:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _inside(path: str) -> str:
    """The normalised path. Raises SandboxError for a path outside the scratch directory."""
    parts = PurePosixPath(path)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts:
        raise SandboxError(f"{path!r} is not a path inside the scratch directory; give a relative one without ..")
    return str(parts)


def _bytes(content: str | bytes) -> bytes:
    # A model may write a lone surrogate.
    return content.encode(errors="replace") if isinstance(content, str) else bytes(content)


@functools.cache
def _can_become_nobody() -> bool:
    """Whether this user's commands can run as nobody: only root's, unless its user namespace does not map nobody."""
    if os.geteuid() != 0:
        return False

    def covers(table: str) -> bool:
        ranges = [list(map(int, line.split())) for line in Path(f"/proc/self/{table}").read_text().splitlines()]
        return any(first <= _NOBODY < first + count for first, _, count in ranges)

    return covers("uid_map") and covers("gid_map")
