"""A node's progress on the run's page, from the lines that it prints."""

import re
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

INTERVAL = 10.0
"""Seconds between two updates of the page."""

_STEP = re.compile(r"^(?P<node>[a-z][a-z0-9_-]*)  (?P<done>\d+)/(?P<steps>\d+)  (?P<told>.*)$")
"""A step as `cascade.progress.Progress` says it."""


class StepProgress:
    """One progress artifact a node: made at the first step, brought up to date at most every INTERVAL seconds, and at
    the last step."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._shown = float("-inf")

    def line(self, line: str) -> None:
        """See whether a line of the node tells of a step; nothing happens where it does not."""
        found = _STEP.match(line)
        if found is None:
            return
        done, steps = int(found["done"]), int(found["steps"])
        if time.monotonic() - self._shown < INTERVAL and done != steps:
            return
        self._shown = time.monotonic()
        percent, told = 100 * done / steps, f"{found['node']}: step {done} of {steps}, {found['told']}"
        if self._artifact is None:
            key = f"progress-{found['node'].replace('_', '-')}"
            made = create_progress_artifact(percent, key=key, description=told)
            assert isinstance(made, UUID)  # a coroutine only in an async caller
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=told)
