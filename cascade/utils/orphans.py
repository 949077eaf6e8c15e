"""Processes that must not outlive this one, also where it is killed and can end nothing itself.

A watcher waits at a pipe that closes with this process, however it ends, and then kills what bears this tether's mark
in its environment. Linux only. The file is also the watcher's program: nothing but the standard library is imported.
"""

import ctypes
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = "CASCADE_TETHER"
_PR_SET_PDEATHSIG = 1


class Tether:
    """`release` it once what is tied to it has ended."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        # In a session of its own and without an outer tether's mark, so that what kills this process's group, or all
        # that this process is tied with, leaves it to do its work.
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != _NAME},
            start_new_session=True,
        )

    @contextmanager
    def tie(self) -> Iterator[None]:
        """Processes started in the block, and theirs, are tied."""
        # setproctitle, where a process uses it, would write over its environment.
        marked = {_NAME: self._mark, "SPT_NOENV": "1"}
        before = {name: os.environ.get(name) for name in marked}
        os.environ.update(marked)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def release(self) -> None:
        self._watcher.kill()
        self._watcher.wait()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()


def kill_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, of that process id, ends. Raises SystemExit where it has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def _watch(mark: str) -> None:
    sys.stdin.buffer.read()
    wanted = f"{_NAME}={mark}".encode()
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    os.kill(int(process), signal.SIGKILL)
        except OSError:
            continue  # It has ended, or is another user's.


if __name__ == "__main__":
    _watch(sys.argv[1])
