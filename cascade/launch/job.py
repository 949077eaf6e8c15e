"""The job that a launcher starts, and helpers of all launchers."""

import hashlib
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from types import FrameType

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe.placement import Placement

MARK = "CASCADE_LAUNCHED_BY"
"""Environment variable of a node's processes: the process id of their launcher on the same machine."""

INTERRUPTED = 128 + signal.SIGTERM
"""Exit status of a node that was interrupted from outside; run again, it resumes."""

PATIENCE = 60
"""Timeout of a cluster's command, in seconds."""


@dataclass(frozen=True)
class Job:
    program: list[str]
    """Arguments of Python: -m cascade node NAME."""
    place: Placement
    layout: Layout
    together: bool
    """True: one process for each GPU, on all machines. False: one process, on one machine with all its GPUs."""

    @property
    def machines(self) -> int:
        return self.place.machines if self.together else 1

    @property
    def processes(self) -> int:
        """On each machine."""
        return max(1, self.place.gpus) if self.together else 1

    @property
    def name(self) -> str:
        """Unique in the project. At most 49 characters: letters, digits, hyphens."""
        readable = re.sub(r"[^a-z0-9]+", "-", "-".join(self.program))[:40].strip("-")
        digest = hashlib.sha256("\0".join([str(self.layout.root.resolve()), *self.program]).encode()).hexdigest()
        return f"{readable}-{digest[:8]}"

    def workers(self, python: str, machine: str, meeting: str) -> list[str]:
        """The command that starts the job's processes on one of its machines. `machine` names the environment variable
        that holds its number, `meeting` is the address of the first one, HOST:PORT."""
        shape = ["--machines", str(self.machines), "--processes", str(self.processes)]
        address = ["--machine-from", machine, "--meeting", meeting]
        return [python, "-m", "cascade.launch.torchrun", *shape, *address, "--", *self.program]


def call(*command: str, stdin: str | None = None) -> str:
    """The output of a cluster's command, run with `stdin`. Raises CascadeError with the last line of its errors where
    it fails or is missing.

    It runs in a new session, so that stopping this process does not stop a cancellation in progress.
    """
    if shutil.which(command[0]) is None:
        raise CascadeError(f"{command[0]}: not on this machine; start the pool's worker where it is installed")
    try:
        process = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, start_new_session=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise CascadeError(f"{command[0]}: no answer in {PATIENCE} s; ask it by hand: {' '.join(command)}") from None
    if process.returncode:
        errors = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        raise CascadeError(f"{' '.join(command[:2])}: {errors[-1]}")
    return process.stdout


def stop_on_sigterm() -> None:
    """Raise SystemExit on SIGTERM, so that the job is cancelled on the way out."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
