"""Progress of a node on the run's page, parsed from its output."""

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cascade.utils.progress import Step, read_step, say

INTERVAL = 10.0
"""Seconds between two updates of the page."""

PAUSE = 600.0
"""Seconds without an update after a failed one: Prefect's client tries for about a minute, in which the node's output
is not read."""


class StepProgress:
    """One progress artifact for a node: created at the first step, updated at most every INTERVAL seconds and at the
    last step. Where Prefect's server does not answer, the node continues without it."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._next_update = float("-inf")

    def line(self, line: str) -> None:
        """Update the artifact where the line is of a step."""
        step = read_step(line)
        if step is None or (time.monotonic() < self._next_update and step.done != step.steps):
            return
        self._next_update = time.monotonic() + INTERVAL
        try:
            self._show(step)
        except Exception as error:  # whatever Prefect's client raises must not stop the node
            self._next_update = time.monotonic() + PAUSE
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            say(f"{step.node}: its progress cannot be shown in Prefect ({reason}); it goes on, again in {PAUSE:.0f} s")

    def _show(self, step: Step) -> None:
        percent = 100 * step.done / step.steps
        description = f"{step.node}: step {step.done} of {step.steps}, {step.fields_text}"
        if self._artifact is None:
            key = f"progress-{step.node.replace('_', '-')}"
            artifact = create_progress_artifact(percent, key=key, description=description)
            assert isinstance(artifact, UUID)  # a coroutine only in an async caller
            self._artifact = artifact
        else:
            update_progress_artifact(self._artifact, percent, description=description)
