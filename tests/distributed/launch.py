"""Starts the scripts of this folder in several processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def started(
    script: str, *arguments: object, processes: int = 2, gpus: bool = False, limit: float = 280, **environment: str
) -> str:
    """In processes of one thread each, without GPUs or with one each. What they printed, after it their exit status.
    `limit`: seconds."""
    command = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(processes), f"tests/distributed/{script}"]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1", **environment}
    if not gpus:
        here["CUDA_VISIBLE_DEVICES"] = ""
    run = [sys.executable, *command, *map(str, arguments)]
    done = subprocess.run(run, cwd=ROOT, env=here, capture_output=True, text=True, timeout=limit)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def launch(script: str, *arguments: object, **settings: object) -> None:
    """Raises AssertionError where it fails."""
    printed = started(script, *arguments, **settings)  # type: ignore[arg-type]
    assert printed.endswith("exit 0"), printed[-3000:]
