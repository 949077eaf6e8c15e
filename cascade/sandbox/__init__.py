"""A sandbox for programs that a model wrote.

    execute([*PYTHON, "main.py"], {"main.py": source}, stdin="1 2\\n") -> Execution

A command has no network, sees only its scratch directory and, read-only, the system's libraries and programs and the
Python installation, gets none of the caller's environment variables, and can neither see nor signal processes outside.
CPU time, wall time, memory, processes, file size and output are limited. When `execute` returns, all processes of the
command have been killed and the scratch directory, a tmpfs, is removed.

Isolation uses user, mount, PID, network, IPC and UTS namespaces, seccomp and resource limits, set up by a separate
process (`launcher`), which runs one command after another. The library sandlock was not used: it needs Linux 6.12
(Landlock ABI 6), which GPU hosts seldom have, forks inside the calling process, which has threads, and limits neither
CPU time nor output. bubblewrap is not a Python package.
"""

from cascade.errors import SandboxError
from cascade.sandbox.program import Ending, Execution, Limits, Program, compiled
from cascade.sandbox.run import PYTHON, REMEDY, connect, execute, missing, require

__all__ = [
    "PYTHON",
    "REMEDY",
    "Ending",
    "Execution",
    "Limits",
    "Program",
    "SandboxError",
    "compiled",
    "connect",
    "execute",
    "missing",
    "require",
]
