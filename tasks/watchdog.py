"""A watchdog that stops a training node without progress."""

import threading
import time
from collections.abc import Callable

from cascade.utils.progress import Step, read_step

LEAST = 30 * 60.0
"""Shortest timeout of a step, in seconds."""

TIMES = 10
"""Timeout of a step as a multiple of the longest step so far, where that is more."""

LOOK = 5.0
"""Seconds between two checks."""


class Watchdog:
    """Reads a node's output, and calls `stop` once where the next step is overdue.

    It watches from the first step to the last. There is no timeout before (queues, weights, servers, compilation) and
    after (writing the checkpoint).
    """

    def __init__(self, stop: Callable[[], None]):
        self._stop = stop
        self._last: Step | None = None
        self._came = 0.0
        self._longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.verdict: str | None = None
        """Why the node was stopped; None where it was not."""

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
        """To be called when the process has ended."""
        self._ended.set()
        if self._last is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            last, seconds, timeout = self._last, time.monotonic() - self._came, max(LEAST, TIMES * self._longest)
            if last is not None and last.done < last.steps and seconds > timeout:
                self.verdict = f"no step for {seconds / 60:.0f} minutes after step {last.done} of {last.steps}; stopped"
                self._stop()
                return
