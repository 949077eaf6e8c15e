"""A program to run in the sandbox, its limits, and its result."""

import marshal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from typing import Literal

MIB = 1 << 20
Ending = Literal["exited", "signalled", "cpu_time", "wall_time", "memory", "output"]


_UNCHECKED_HASH = (1).to_bytes(4, "little") + bytes(8)
"""Of a compiled module whose source need not be there (PEP 552)."""


def compiled(source: str, name: str) -> bytes:
    """A Python file as `NAME.pyc`, which can be run, or imported where it stands in place of `NAME.py`. Compiling what
    belongs to many programs once is most of what starting them costs."""
    return MAGIC_NUMBER + _UNCHECKED_HASH + marshal.dumps(compile(source, name, "exec", dont_inherit=True))


@dataclass(frozen=True)
class Limits:
    """Limits for all processes of a command together, unless stated otherwise."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    memory_bytes: int = 512 * MIB
    """Address space of each process; also resident memory of all processes plus the scratch directory's contents."""
    processes: int = 16
    """Processes and threads."""
    file_bytes: int = 16 * MIB
    """Size of the largest file."""
    output_bytes: int = MIB
    """Standard output and error together; more is cut off, and the command is killed."""


@dataclass(frozen=True)
class Execution:
    exit_code: int | None
    """None: killed. 127: the command was not found."""
    stdout: str
    stderr: str
    ended: Ending
    seconds: float
    """Wall time of the command, without setting up the sandbox."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files named by `keep` that existed at the end."""


@dataclass(frozen=True)
class Program:
    """A command and the files of its scratch directory (relative path → content)."""

    command: Sequence[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    limits: Limits = Limits()
