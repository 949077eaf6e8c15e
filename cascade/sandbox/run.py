"""Starts the launcher for one command or for two that talk, and reads its answer."""

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
"""Starts a program of Python and its standard library: no packages, no environment, in half the usual time."""

_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_SCRATCH = "/scratch"
_NOBODY = 65534
"""Who root's commands are to the kernel, so that the limit on processes binds them."""
_GRACE_SECONDS = 15.0
"""How much longer than its command the launcher may take."""
_OLDEST_KERNEL = (5, 14)
"""The first that counts processes in each user namespace by itself."""
REMEDY = (
    "Allow user namespaces without privileges (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined), or use another machine"
)
"""What to do about what is missing."""
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
    """Run `command` in a fresh scratch directory that holds `files`, and give back what it wrote.

    `keep` names files to bring out of the scratch directory; `roots` names directories of it that the command also
    finds at the root (`app` as `/app`). Any thread may call. Raises SandboxError where this
    machine lacks what confines a program (`missing`) and where the sandbox broke.
    """
    require()
    request = _request(Program(command, files, limits), stdin=stdin, keep=keep, roots=roots)
    with _slots, _launcher() as launcher:
        launcher.send(request, limits.wall_seconds + _GRACE_SECONDS)
        return _execution(launcher.receive())


def connect(asker: Program, answerer: Program) -> tuple[Execution, Execution | None]:
    """Run two commands, each confined by itself, with the standard output of each as the other's input.

    Returns when the asker has ended; an answerer that still runs a second later is killed (None). Raises as
    `execute` does.
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
        asked = _execution(launchers[0].receive())
        try:
            return asked, _execution(launchers[1].receive(1.0))
        except TimeoutError:
            return asked, None


def missing() -> list[str]:
    """The mechanisms that this machine lacks, in words; empty where a program can be confined."""
    return list(_missing())


def require() -> None:
    """Raise SandboxError where something is missing."""
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
    """A process that confines one command after the other."""

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
        """`seconds`: how long its answer may take."""
        assert self.process.stdin is not None
        data = marshal.dumps(request)
        # The launcher reads all of it before it does anything, so this waits for no answer.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(len(data).to_bytes(8, "little") + data)
            self.process.stdin.flush()
        self.deadline = time.monotonic() + seconds

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The answer. Raises SandboxError; TimeoutError where `seconds` are given and are over."""
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
        """The kernel kills a whole PID namespace with its first process, which dies with the launcher."""
        self.process.kill()
        self.process.communicate()


_slots = threading.BoundedSemaphore(os.cpu_count() or 1)
"""More executions than processors would only use up each other's wall time."""
_idle: list[_Launcher] = []


@contextmanager
def _launcher(*streams: int) -> Iterator[_Launcher]:
    """An idle launcher, or one of its own for `streams`. It is stopped after any error, and reused after none."""
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


# A forked child must not talk through its parent's pipes.
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
    """Raises SandboxError for a path that leaves the scratch directory."""
    parts = PurePosixPath(path)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts:
        raise SandboxError(f"{path!r} is not a path inside the scratch directory; give a relative one without ..")
    return str(parts)


def _bytes(content: str | bytes) -> bytes:
    # A model may write half of a surrogate pair.
    return content.encode(errors="replace") if isinstance(content, str) else bytes(content)


@functools.cache
def _can_become_nobody() -> bool:
    """Whether commands of this user can run as nobody: for root, unless it is the root of a small user namespace."""
    if os.geteuid() != 0:
        return False

    def covers(table: str) -> bool:
        ranges = [list(map(int, line.split())) for line in Path(f"/proc/self/{table}").read_text().splitlines()]
        return any(first <= _NOBODY < first + count for first, _, count in ranges)

    return covers("uid_map") and covers("gid_map")
