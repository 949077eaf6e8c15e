"""CPU time in a unit of this machine at this moment: machines differ by several times, and so do two moments of one."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

from benchmarks.cpu_time import cpu_seconds

T = TypeVar("T")


def in_imports_of_dvc(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and its CPU time as a multiple of what a process takes that imports DVC (the median of one
    before and two after it); half a second where Python is fast."""
    before = _import_dvc()
    began = cpu_seconds()
    found = work()
    spent = cpu_seconds() - began
    return found, spent / statistics.median([before, _import_dvc(), _import_dvc()])


def _import_dvc() -> float:
    began = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import dvc.cli, dvc.repo.reproduce, dvc.stage"], check=True)
    return cpu_seconds() - began
