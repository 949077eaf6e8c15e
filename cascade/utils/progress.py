"""Progress on standard error: a line for each step, at most one a second."""

import re
import sys
import time
from typing import NamedTuple

from cascade.utils import distributed

_STEP = re.compile(r"(?P<node>\S+)  (?P<done>\d+)/(?P<steps>\d+)  (?P<fields_text>.*)")


class Step(NamedTuple):
    """A parsed line of Progress: `done` of `steps` of a node, and the rest of the line."""

    node: str
    done: int
    steps: int
    fields_text: str


def read_step(line: str) -> Step | None:
    """The parsed line; None where it is not a line of Progress."""
    match = _STEP.fullmatch(line)
    return Step(match["node"], int(match["done"]), int(match["steps"]), match["fields_text"]) if match else None


class Progress:
    def __init__(self, node: str, steps: int, start: int):
        self._node = node
        self._steps = steps
        self._start = start
        self._began = time.monotonic()
        self._shown = float("-inf")

    def step(self, step: int, fields: dict[str, str]) -> None:
        """Print that step `step` (from 0) is done. The first and the last are always printed."""
        now = time.monotonic()
        done = step + 1
        if now - self._shown < 1 and done != self._steps:
            return
        self._shown = now
        seconds_left = (now - self._began) / (done - self._start) * (self._steps - done)
        parts = [f"{self._node}  {done}/{self._steps}", *(f"{name} {value}" for name, value in fields.items())]
        say("  ".join([*parts, f"left {int(seconds_left) // 60}:{int(seconds_left) % 60:02d}"]))


def say(line: str) -> None:
    if distributed.is_main():
        print(line, file=sys.stderr, flush=True)
