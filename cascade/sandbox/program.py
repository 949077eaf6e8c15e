"""What is to be run, within which limits, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20
Ending = Literal["exited", "signalled", "cpu_time", "wall_time", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    """For all processes of a command together, unless it says otherwise."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    memory_bytes: int = 512 * MIB
    """Address space of each process, and resident memory of all with what lies in the scratch directory."""
    processes: int = 16
    """Processes and threads."""
    file_bytes: int = 16 * MIB
    """The largest file."""
    output_bytes: int = MIB
    """Standard output and error together; what is beyond is cut, and the command is killed."""


@dataclass(frozen=True)
class Execution:
    exit_code: int | None
    """None: killed. 127: the command is not there."""
    stdout: str
    stderr: str
    ended: Ending
    seconds: float
    """Wall time of the command alone."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Those of `keep` that were there at the end."""


@dataclass(frozen=True)
class Program:
    """A command and the files it is to find in its scratch directory (relative path: content)."""

    command: Sequence[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    limits: Limits = Limits()
