"""What the launchers start, and what they have in common."""

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
"""Set for the processes of a node: the process id of what started them on their machine."""

INTERRUPTED = 128 + signal.SIGTERM
"""Exit status of a node that was ended from outside: run again, it resumes."""

PATIENCE = 60
"""Seconds that a cluster's command may take."""


@dataclass(frozen=True)
class Job:
    program: list[str]
    """What Python is to run: -m cascade node NAME."""
    place: Placement
    layout: Layout
    together: bool
    """One process a GPU, on all machines; otherwise one process in all, on one machine with all its GPUs."""

    @property
    def machines(self) -> int:
        return self.place.machines if self.together else 1

    @property
    def processes(self) -> int:
        """On each machine."""
        return max(1, self.place.gpus) if self.together else 1

    @property
    def name(self) -> str:
        """A project has one job of this name at a time. At most 49 characters: letters, digits, hyphens."""
        readable = re.sub(r"[^a-z0-9]+", "-", "-".join(self.program))[:40].strip("-")
        digest = hashlib.sha256("\0".join([str(self.layout.root.resolve()), *self.program]).encode()).hexdigest()
        return f"{readable}-{digest[:8]}"

    def workers(self, python: str, machine: str, meeting: str) -> list[str]:
        """The command that starts the job's processes on one of its machines. `machine` names the environment variable
        that holds its number, `meeting` is where the first one is reached, HOST:PORT."""
        shape = ["--machines", str(self.machines), "--processes", str(self.processes)]
        where = ["--machine-from", machine, "--meeting", meeting]
        return [python, "-m", "cascade.launch.torchrun", *shape, *where, "--", *self.program]


def call(*command: str, given: str | None = None) -> str:
    """What a command of a cluster prints. Raises CascadeError with its last words where it fails or is missing.

    It has a session of its own, so that what stops this process does not stop a cancellation under way.
    """
    if shutil.which(command[0]) is None:
        raise CascadeError(f"{command[0]}: not on this machine; start the pool's worker where it is installed")
    try:
        ended = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=PATIENCE, start_new_session=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise CascadeError(f"{command[0]}: no answer in {PATIENCE} s; ask it by hand: {' '.join(command)}") from None
    if ended.returncode:
        words = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        raise CascadeError(f"{' '.join(command[:2])}: {words[-1]}")
    return ended.stdout


def stop_on_sigterm() -> None:
    """Leave by an exception on SIGTERM, so that a job is taken down on the way out."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
