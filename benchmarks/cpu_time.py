"""CPU time of a process with all its descendants: what other work on the machine changes least."""

import os
import time
from pathlib import Path


def cpu_seconds() -> float:
    """User and system time of this process, its living descendants and, of each, the children that have been waited
    for. The former to the microsecond, descendants to the clock tick (10 ms): measure for a second or longer. What
    kernel threads do on their behalf, such as taking down a network namespace, is not in it."""
    while True:
        try:
            before = _descendants(os.getpid())
            ticks = sum(map(_ticks, before))
            if _descendants(os.getpid()) == before:
                break
        except (FileNotFoundError, ProcessLookupError):
            pass  # one has just ended; its time is its parent's now
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system + ticks / os.sysconf("SC_CLK_TCK")


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _ticks(process: int) -> int:
    """utime, stime, cutime and cstime of `man 5 proc_pid_stat`."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))
