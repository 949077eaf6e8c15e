"""What the worker processes of the tests do. Apart from them, so that a worker need not import torch."""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError


@contextmanager
def working():
    yield work
    if farewell := os.environ.get("LANES_FAREWELL"):
        (Path(farewell) / str(os.getpid())).touch()


def work(job: str) -> tuple[str, int]:
    kind, _, rest = job.partition(" ")
    if kind == "meet":  # Only ends where another worker is at work at the same time.
        folder = Path(rest)
        (folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return str(len(list(folder.iterdir()))), os.getpid()
    if kind == "fail":
        raise CascadeError(rest)
    if kind == "break":
        raise BrokenPipeError(rest)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return rest, os.getpid()
