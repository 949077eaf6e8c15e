"""Runs what a model wrote, where it can harm nothing.

    execute(["python3", "-I", "main.py"], {"main.py": source}, stdin="1 2\\n") -> Execution

A program has no network, reads only the files it was given and an allow-list (Python's installation, system
libraries, a compiler), writes only into its own scratch directory, sees no environment variable of ours, and cannot
see or signal a process outside. CPU time, wall time, memory, processes, file size and output are limited. When
`execute` returns, every process is dead and the scratch is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20
Ending = Literal["exited", "signalled", "cpu_time", "wall_time", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    memory_bytes: int = 512 * MIB
    processes: int = 16
    file_bytes: int = 16 * MIB
    """Largest file."""
    output_bytes: int = MIB
    """Standard output and error, each; what is beyond is cut."""


@dataclass(frozen=True)
class Execution:
    exit_code: int | None
    """None: killed."""
    stdout: str
    stderr: str
    ended: Ending
    seconds: float
    files: dict[str, bytes] = field(default_factory=dict)
    """What `keep` named, as the program left it; absent where it left none."""


def execute(
    command: Sequence[str],
    files: Mapping[str, str | bytes],
    *,
    stdin: str = "",
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    keep: Sequence[str] = (),
) -> Execution:
    """Run `command` in a fresh scratch directory that holds `files` (relative path → content), gone afterwards.

    Raises SandboxError where the kernel lacks what confines a program (`missing`), or the sandbox itself broke.
    """
    raise NotImplementedError


def missing() -> list[str]:
    """The mechanisms that this machine lacks, in words; empty where a program can be confined."""
    raise NotImplementedError
