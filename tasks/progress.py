"""A node's progress on the run's page, from the lines that it prints."""

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cascade.utils.progress import Step, read_step, say

INTERVAL = 10.0
"""Seconds between two updates of the page."""

PAUSE = 600.0
"""Seconds without an update after one that failed: Prefect's client tries for about a minute, and meanwhile the node's
lines are not read."""


class StepProgress:
    """One progress artifact a node: made at the first step, brought up to date at most every INTERVAL seconds, and at
    the last step. Where Prefect's server does not answer, the node goes on without."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._due = float("-inf")

    def line(self, line: str) -> None:
        """See whether a line of the node tells of a step; nothing happens where it does not."""
        step = read_step(line)
        if step is None or (time.monotonic() < self._due and step.done != step.steps):
            return
        self._due = time.monotonic() + INTERVAL
        try:
            self._show(step)
        except Exception as error:  # whatever Prefect's client raises: a picture of the node does not end it
            self._due = time.monotonic() + PAUSE
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            say(f"{step.node}: its progress cannot be shown in Prefect ({reason}); it goes on, again in {PAUSE:.0f} s")

    def _show(self, step: Step) -> None:
        percent = 100 * step.done / step.steps
        description = f"{step.node}: step {step.done} of {step.steps}, {step.fields_text}"
        if self._artifact is None:
            key = f"progress-{step.node.replace('_', '-')}"
            made = create_progress_artifact(percent, key=key, description=description)
            assert isinstance(made, UUID)  # a coroutine only in an async caller
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=description)
