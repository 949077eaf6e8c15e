"""Kill descendants that would outlive this process, also where it is killed itself.

A watcher process waits for a pipe that closes when this process ends, and then kills every process with this tether's
mark in its environment. Linux only. The file is also the watcher's program, so it imports only the standard library.
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
    """Call `release` after the tied processes have ended."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        # In a new session and without an outer tether's mark, so that killing this process's group, or the processes of
        # the outer tether, does not kill the watcher.
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != _NAME},
            start_new_session=True,
        )

    @contextmanager
    def tie(self) -> Iterator[None]:
        """Tie the processes that the block starts, and their descendants."""
        # setproctitle would overwrite the environment of a process that uses it.
        marked = {_NAME: self._mark, "SPT_NOENV": "1"}
        old_values = {name: os.environ.get(name) for name in marked}
        os.environ.update(marked)
        try:
            yield
        finally:
            for name, value in old_values.items():
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
    """Have the kernel kill this process when its parent (process id `parent`) ends. Raises SystemExit where it has
    ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def _watch(mark: str) -> None:
    sys.stdin.buffer.read()
    variable = f"{_NAME}={mark}".encode()
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if variable in file.read().split(b"\0"):
                    os.kill(int(process), signal.SIGKILL)
        except OSError:
            continue  # It has ended, or is another user's.


if __name__ == "__main__":
    _watch(sys.argv[1])
