"""Runs one command, or two connected commands, through the launcher."""

import atexit
import contextlib
import functools
import marshal
import os
import platform
import select
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
    request = _request(Program(command, files, limits), stdin=stdin, keep=keep, roots=roots)
    with _slots, _launcher() as launcher:
        launcher.send(request, limits.wall_seconds + _GRACE_SECONDS)
        return _execution(launcher.receive())


def connect(asker: Program, answerer: Program) -> tuple[Execution, Execution | None]:
    """Run two commands in separate sandboxes, with the standard output of each as the other's standard input.

    Returns when the asker has ended; an answerer that still runs a second later is killed, and its result is None.
    Raises as `execute` does.
    """
    require()
    questions, answers = os.pipe(), os.pipe()
    ends = ((answers[0], questions[1]), (questions[0], answers[1]))
    with _slots, ExitStack() as stack:
        launchers = []
        try:
            for program, streams in zip((asker, answerer), ends, strict=True):
                launchers.append(stack.enter_context(_launcher(*streams)))
                launchers[-1].send(_request(program, streams=streams), program.limits.wall_seconds + _GRACE_SECONDS)
        finally:
            for descriptor in (*questions, *answers):
                os.close(descriptor)
        execution = _execution(launchers[0].receive())
        try:
            return execution, _execution(launchers[1].receive(1.0))
        except TimeoutError:
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
        with _launcher() as launcher:
            launcher.send({"probe": True, "streams": ()}, _GRACE_SECONDS)
            if lacks := launcher.receive()["lacks"]:
                return tuple(f"it has no {name} namespaces for this user" for name in lacks)
            launcher.send(_request(Program([*PYTHON, "-c", "pass"])), _GRACE_SECONDS)
            trial = _execution(launcher.receive())
    except SandboxError as error:
        return (str(error),)
    return () if trial.exit_code == 0 else (f"Python does not start in the sandbox: {trial.stderr.strip()[-200:]}",)


class _Launcher:
    """A launcher process, which runs one command after another."""

    def __init__(self, streams: Sequence[int] = ()):
        self.process = subprocess.Popen(
            [*PYTHON, _LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            pass_fds=streams,
            start_new_session=True,
        )
        self.deadline = 0.0

    def send(self, request: dict[str, Any], seconds: float) -> None:
        """Send a request. `seconds`: time limit for the answer."""
        assert self.process.stdin is not None
        data = marshal.dumps(request)
        # The launcher reads the whole request before it starts anything, so this does not block.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(len(data).to_bytes(8, "little") + data)
            self.process.stdin.flush()
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
        assert self.process.stdout is not None
        data = bytearray()
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        while len(data) < count:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError
            part = os.read(self.process.stdout.fileno(), min(count - len(data), MIB))
            if not part:
                raise SandboxError("the sandbox's launcher ended without an answer")
            data += part
        return bytes(data)

    def stop(self) -> None:
        """Kill the launcher. Process 1 of the PID namespace dies with it, and the kernel kills the rest."""
        self.process.kill()
        self.process.communicate()


_slots = threading.BoundedSemaphore(os.cpu_count() or 1)
"""With more executions than processors they would only use up each other's wall time."""
_idle: list[_Launcher] = []


@contextmanager
def _launcher(*streams: int) -> Iterator[_Launcher]:
    """An idle launcher, or a new one if there are `streams`. It is stopped after an error, else reused."""
    launcher = None
    while _idle and not streams and launcher is None:
        with contextlib.suppress(IndexError):
            launcher = _idle.pop()
    launcher = launcher or _Launcher(streams)
    try:
        yield launcher
    except BaseException:
        launcher.stop()
        raise
    if streams:
        launcher.stop()
    else:
        _idle.append(launcher)


@atexit.register
def _stop_all() -> None:
    while _idle:
        _idle.pop().stop()


# A forked child must not use its parent's pipes.
os.register_at_fork(after_in_child=_idle.clear)


def _request(
    program: Program,
    *,
    stdin: str = "",
    keep: Sequence[str] = (),
    roots: Sequence[str] = (),
    streams: Sequence[int] = (),
) -> dict[str, Any]:
    prefix = os.path.realpath(sys.base_prefix)
    python = () if f"{prefix}/".startswith("/usr/") else (prefix,)
    return {
        "probe": False,
        "command": list(program.command),
        "files": {_inside(path): _bytes(content) for path, content in program.files.items()},
        "keep": [_inside(path) for path in keep],
        "stdin": _bytes(stdin),
        "streams": streams,
        "limits": asdict(program.limits),
        "environment": {
            "PATH": f"{os.path.dirname(PYTHON[0])}:/usr/local/bin:/usr/bin:/bin",
            "HOME": _SCRATCH,
            "TMPDIR": _SCRATCH,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
        },
        "readable": [path for path in (*_SYSTEM, *_DEVICES, *python) if os.path.lexists(path)],
        "scratch": _SCRATCH,
        "roots": [_inside(name) for name in roots],
        "become": _NOBODY if _can_become_nobody() else None,
        "seccomp": seccomp.compile_filter(platform.machine()),
    }


def _execution(answer: dict[str, Any]) -> Execution:
    texts = {name: answer.pop(name).decode(errors="replace") for name in ("stdout", "stderr")}
    return Execution(**answer, **texts)


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
