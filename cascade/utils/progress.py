"""What a person watching a node sees: a line a step at most every second, readable in a log file too."""

import re
import sys
import time
from typing import NamedTuple

from cascade.utils import distributed

_STEP = re.compile(r"(?P<node>\S+)  (?P<done>\d+)/(?P<steps>\d+)  (?P<told>.*)")


class Step(NamedTuple):
    """A line of Progress, read: `done` of `steps` of a node, and the rest of what it says."""

    node: str
    done: int
    steps: int
    told: str


def read_step(line: str) -> Step | None:
    """None where the line tells of something else."""
    found = _STEP.fullmatch(line)
    return Step(found["node"], int(found["done"]), int(found["steps"]), found["told"]) if found else None


class Progress:
    def __init__(self, node: str, steps: int, start: int):
        self._node = node
        self._steps = steps
        self._start = start
        self._began = time.monotonic()
        self._shown = float("-inf")

    def step(self, step: int, fields: dict[str, str]) -> None:
        """Say that step `step` (from 0) is done. The first and the last are always shown."""
        now = time.monotonic()
        done = step + 1
        if now - self._shown < 1 and done != self._steps:
            return
        self._shown = now
        left = (now - self._began) / (done - self._start) * (self._steps - done)
        parts = [f"{self._node}  {done}/{self._steps}", *(f"{name} {value}" for name, value in fields.items())]
        say("  ".join([*parts, f"left {int(left) // 60}:{int(left) % 60:02d}"]))


def say(line: str) -> None:
    if distributed.is_main():
        print(line, file=sys.stderr, flush=True)
