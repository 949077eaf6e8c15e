"""Starts the launcher for one command or for two that talk, and reads its answer."""

import functools
import marshal
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from cascade.errors import SandboxError
from cascade.sandbox import seccomp
from cascade.sandbox.launcher import NOBODY, SCRATCH

MIB = 1 << 20
Ending = Literal["exited", "signalled", "cpu_time", "wall_time", "memory", "output"]

PYTHON = (os.path.realpath(sys.executable), "-I", "-S")
"""Starts a program of Python and its standard library: no packages, no environment, in half the usual time."""

_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_GRACE_SECONDS = 15.0
"""How much longer than its command the launcher may take."""
_OLDEST_KERNEL = (5, 14)
"""The first that counts processes in each user namespace by itself."""


@dataclass(frozen=True)
class Limits:
    """For all processes of a command together, unless it says otherwise."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    memory_bytes: int = 512 * MIB
    """Address space of each process, and resident memory of all with what lies in the scratch directory."""
    processes: int = 16
    """Processes and threads."""
    file_bytes: int = 16 * MIB
    """The largest file."""
    output_bytes: int = MIB
    """Standard output and error together; what is beyond is cut, and the command is killed."""


@dataclass(frozen=True)
class Execution:
    exit_code: int | None
    """None: killed. 127: the command is not there."""
    stdout: str
    stderr: str
    ended: Ending
    seconds: float
    """Wall time of the command alone."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Those of `keep` that were there at the end."""


@dataclass(frozen=True)
class Program:
    """A command and the files it is to find in its scratch directory (relative path: content)."""

    command: Sequence[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    limits: Limits = Limits()


def execute(
    command: Sequence[str],
    files: Mapping[str, str | bytes],
    *,
    stdin: str = "",
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    keep: Sequence[str] = (),
) -> Execution:
    """Run `command` in a fresh scratch directory that holds `files`, and give back what it wrote.

    `keep` names files to bring out of the scratch directory. Any thread may call. Raises SandboxError where this
    machine lacks what confines a program (`missing`) and where the sandbox broke.
    """
    require()
    launcher = _start(Program(command, files, limits), stdin=stdin, keep=keep)
    return launcher.answer()


def connect(asker: Program, answerer: Program) -> tuple[Execution, Execution | None]:
    """Run two commands, each confined by itself, with the standard output of each as the other's input.

    Returns when the asker has ended; an answerer that still runs a second later is killed (None). Raises as
    `execute` does.
    """
    require()
    questions, answers = os.pipe(), os.pipe()
    try:
        launchers = [_start(asker, streams=(answers[0], questions[1]))]
        try:
            launchers.append(_start(answerer, streams=(questions[0], answers[1])))
        except BaseException:
            launchers[0].kill()
            raise
    finally:
        for descriptor in (*questions, *answers):
            os.close(descriptor)
    first, second = launchers
    try:
        asked = first.answer()
    except BaseException:
        second.kill()
        raise
    try:
        return asked, second.answer(1.0)
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
            f"this machine cannot confine programs; it lacks: {'; '.join(lacks)}. Nothing was run. "
            "Run it where unprivileged user namespaces are allowed (see docs/sandbox.md)"
        )


@functools.cache
def _missing() -> tuple[str, ...]:
    if platform.system() != "Linux":
        return ("Linux",)
    if platform.machine() not in seccomp.MACHINES:
        return (f"a list of system calls for {platform.machine()} (there are {', '.join(seccomp.MACHINES)})",)
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release < _OLDEST_KERNEL:
        return (f"Linux {'.'.join(map(str, _OLDEST_KERNEL))} or later (this is {platform.release()})",)
    lacks = _Launcher({"probe": True}, 0.0, ()).read()["lacks"]
    if lacks:
        return tuple(f"{name} namespaces without privileges" for name in lacks)
    try:
        trial = _start(Program([*PYTHON, "-c", "pass"])).answer()
    except SandboxError as error:
        return (str(error),)
    return () if trial.exit_code == 0 else (f"a Python that starts in the sandbox: {trial.stderr.strip()[-200:]}",)


class _Launcher:
    """The process of one execution."""

    def __init__(self, request: dict[str, Any], wall_seconds: float, streams: Sequence[int]):
        self.wall_seconds = wall_seconds
        self.process = subprocess.Popen(
            [*PYTHON, _LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            pass_fds=streams,
            start_new_session=True,
        )
        self.request = marshal.dumps(request)
        assert self.process.stdin is not None
        try:
            # The launcher reads all of it before it does anything, so this cannot wait for an answer.
            self.process.stdin.write(self.request)
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdin = None

    def read(self, seconds: float = _GRACE_SECONDS) -> dict[str, Any]:
        """Raises SandboxError, or TimeoutError after `seconds`, when the process has been killed."""
        try:
            out, error = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError from None
        except BaseException:
            self.kill()
            raise
        if not out:
            raise SandboxError(f"the sandbox ended without an answer: {error.decode(errors='replace').strip()[-300:]}")
        answer: dict[str, Any] = marshal.loads(out)
        if "broken" in answer:
            raise SandboxError(f"the sandbox could not be set up: {answer['broken']}")
        return answer

    def answer(self, seconds: float | None = None) -> Execution:
        """Raises TimeoutError after `seconds`; without them, SandboxError when the launcher itself hangs."""
        try:
            answer = self.read(self.wall_seconds + _GRACE_SECONDS if seconds is None else seconds)
        except TimeoutError:
            if seconds is not None:
                raise
            raise SandboxError("the sandbox did not end its command in time; it was killed") from None
        texts = {name: answer.pop(name).decode(errors="replace") for name in ("stdout", "stderr")}
        return Execution(**answer, **texts)

    def kill(self) -> None:
        """The kernel kills the whole PID namespace with its first process, which dies with the launcher."""
        self.process.kill()
        self.process.communicate()


def _start(
    program: Program, *, stdin: str = "", keep: Sequence[str] = (), streams: tuple[int, int] | None = None
) -> _Launcher:
    python = os.path.realpath(sys.base_prefix)
    request = {
        "command": list(program.command),
        "files": {_inside(path): _bytes(content) for path, content in program.files.items()},
        "keep": [_inside(path) for path in keep],
        "stdin": _bytes(stdin),
        "streams": streams,
        "limits": asdict(program.limits),
        "environment": {
            "PATH": f"{os.path.dirname(PYTHON[0])}:/usr/local/bin:/usr/bin:/bin",
            "HOME": SCRATCH,
            "TMPDIR": SCRATCH,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
        },
        "readable": [path for path in (*_SYSTEM, *_DEVICES, python) if os.path.lexists(path)],
        "become_nobody": _can_become_nobody(),
        "seccomp": seccomp.compile_filter(platform.machine()),
    }
    return _Launcher(request, program.limits.wall_seconds, streams or ())


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
        return any(first <= NOBODY < first + count for first, _, count in ranges)

    return covers("uid_map") and covers("gid_map")
