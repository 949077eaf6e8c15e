"""Another revision of this project beside this one: projects of each, and their commands, timed."""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_time import cpu_seconds

HERE = Path(__file__).resolve().parents[1]

FILES = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", "params.yaml")
FOLDERS = (".dvc/plots", "recipes")


@dataclass(frozen=True)
class Cost:
    wall: float
    """Seconds."""
    cpu: float
    """Seconds, of the command and of all that it started."""


def make_project(tree: Path, folder: Path, checkpoint: Path) -> Path:
    """A project of a checkout's own recipe, with this base model."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(tree / name, folder / name)
    shutil.copytree(checkpoint, folder / "models" / "base")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def run(tree: Path, project: Path, *module: str, check: bool = True) -> Cost:
    """Run a Python module of a checkout in a project; where it fails, what it printed last is shown. With `check`
    raises CalledProcessError then."""
    began, before = time.monotonic(), _spent()
    with _started(tree, project, *module) as process:
        printed, _ = process.communicate()
    if process.returncode:
        print(printed[-3000:], file=sys.stderr)
        if check:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(time.monotonic() - began, _spent() - before)


def until_line(tree: Path, project: Path, pattern: str, *module: str) -> Cost:
    """The same up to the first line that matches; the process is then killed. Raises RuntimeError where none does."""
    began, before = time.monotonic(), cpu_seconds()
    with _started(tree, project, *module) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.search(pattern, line):
                return Cost(time.monotonic() - began, cpu_seconds() - before)
    raise RuntimeError(f"{' '.join(module)}: no line matches {pattern}:\n{''.join(lines[-30:])}")


@contextmanager
def _started(tree: Path, project: Path, *module: str) -> Iterator[subprocess.Popen]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=project,
        env=environment | {"PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
