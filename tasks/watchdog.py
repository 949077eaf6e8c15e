"""A training node whose steps have stopped coming: it hangs, and waits for nothing that will happen."""

import threading
import time
from collections.abc import Callable

from cascade.utils.progress import Step, read_step

LEAST = 30 * 60.0
"""Seconds without a step that are borne in any case."""

TIMES = 10
"""So many times the longest step so far is borne too: where steps take an hour, half an hour says nothing."""

LOOK = 5.0
"""Seconds between two looks."""


class Watchdog:
    """Reads a node's lines, and calls `stop` once where the next step is overdue.

    It watches from the first step to the last. What comes before (queues, weights, servers, compilation) and after
    (writing the checkpoint) has no measure of its own.
    """

    def __init__(self, stop: Callable[[], None]):
        self._stop = stop
        self._last: Step | None = None
        self._came = 0.0
        self._longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.verdict: str | None = None
        """Why the node was stopped, where it was."""

    def line(self, line: str) -> None:
        if (step := read_step(line)) is None:
            return
        now = time.monotonic()
        if self._last is None:
            self._thread.start()
        else:
            self._longest = max(self._longest, now - self._came)
        self._came = now
        self._last = step

    def end(self) -> None:
        """The process has ended by itself."""
        self._ended.set()
        if self._last is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            last, silent, borne = self._last, time.monotonic() - self._came, max(LEAST, TIMES * self._longest)
            if last is not None and last.done < last.steps and silent > borne:
                self.verdict = f"no step for {silent / 60:.0f} minutes after step {last.done} of {last.steps}; stopped"
                self._stop()
                return
