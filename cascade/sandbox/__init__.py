"""Runs what a model wrote, where it can harm nothing.

    execute([*PYTHON, "main.py"], {"main.py": source}, stdin="1 2\\n") -> Execution

A command has no network, sees only its scratch directory, the system's libraries and programs, and Python's own
installation (read-only), gets no environment variable of ours, and can neither see nor signal a process outside. CPU
time, wall time, memory, processes, file size and output are limited. When `execute` returns, every process is dead
and the scratch directory, which lies in memory, is gone.

Made of user, mount, PID, network, IPC and UTS namespaces, seccomp and resource limits, in a process of its own. The
library sandlock was not used: it needs Linux 6.12 (Landlock ABI 6), which GPU hosts seldom have, forks inside the
calling process, where threads run, and bounds neither CPU time nor output. bubblewrap is not a Python package.
"""

from cascade.errors import SandboxError
from cascade.sandbox.program import Ending, Execution, Limits, Program
from cascade.sandbox.run import PYTHON, REMEDY, connect, execute, missing, require

__all__ = [
    "PYTHON",
    "REMEDY",
    "Ending",
    "Execution",
    "Limits",
    "Program",
    "SandboxError",
    "connect",
    "execute",
    "missing",
    "require",
]
