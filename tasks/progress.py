"""A node's progress on the run's page, from the lines that it prints."""

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cascade.progress import read_step

INTERVAL = 10.0
"""Seconds between two updates of the page."""


class StepProgress:
    """One progress artifact a node: made at the first step, brought up to date at most every INTERVAL seconds, and at
    the last step."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._shown = float("-inf")

    def line(self, line: str) -> None:
        """See whether a line of the node tells of a step; nothing happens where it does not."""
        step = read_step(line)
        if step is None or (time.monotonic() - self._shown < INTERVAL and step.done != step.steps):
            return
        self._shown = time.monotonic()
        percent = 100 * step.done / step.steps
        told = f"{step.node}: step {step.done} of {step.steps}, {step.told}"
        if self._artifact is None:
            key = f"progress-{step.node.replace('_', '-')}"
            made = create_progress_artifact(percent, key=key, description=told)
            assert isinstance(made, UUID)  # a coroutine only in an async caller
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=told)
