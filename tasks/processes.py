"""DVC stages as child processes, each in a new session, so that stopping one stops its descendants."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cascade.launch.ui_servers import stop_groups
from cascade.utils.orphans import Tether
from tasks.inputs import missing_input
from tasks.watchdog import Watchdog

_NOISE = re.compile(
    r"^(Running stage '|> cascade |(Generating|Updating) lock file|To (track the changes|enable auto staging)|"
    r"Stage '.*didn't change|Data and pipelines are up to date|\s+git add|\s+dvc config|Use `dvc push`|"
    r"Verifying data sources|WARNING: '.*samples\.jsonl' is empty|$)"
)
"""Lines of DVC that are not passed on. A check that needed no repair has no samples."""
_EXIT = re.compile(r"exited with (-?\d+)")
_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
_TAIL = 50
PATIENCE = 10.0
"""Seconds between SIGTERM and SIGKILL."""

_alive: set[subprocess.Popen] = set()
stopping = threading.Event()
"""Set when the run is being stopped, so that runs on other pools are cancelled too."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. `failed`: with an error that a retry would repeat. `interrupted`: killed from outside, hung,
    or blocked by DVC's locks; run again, it resumes. `message` is its error."""

    kind: Literal["built", "unchanged", "failed", "interrupted"]
    message: str = ""


def run_stage(
    stage: str,
    root: Path,
    run_id: str,
    say: Callable[[str], None],
    force: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Bring one DVC stage up to date; with `force`, rebuild it. Where an input is missing it fails, and its outputs
    stay."""
    if missing := missing_input(stage, root):
        return Outcome("failed", missing)
    options = ["--force"] if force else []
    module = ["dvc", "--wait-for-lock", "repro", "--single-item", *options, stage]
    return run_process(module, root, run_id, say, environment)


def run_process(
    module: list[str],
    root: Path,
    run_id: str,
    say: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a Python module, with its arguments, in the project `root`, with `environment` added to this process's.
    Every line of its output is passed to `say`."""
    if stopping.is_set():
        return Outcome("failed", "not started: the run was stopped")
    environment = {
        **os.environ,
        **(environment or {}),
        "CASCADE_RUN_ID": run_id,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }
    child = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _alive.add(child)
    tail: deque[str] = deque(maxlen=_TAIL)
    watchdog = Watchdog(lambda: stop_groups([child], PATIENCE))
    try:
        assert child.stdout is not None
        for line in map(str.rstrip, child.stdout):
            tail.append(line)
            watchdog.line(line)
            if not _NOISE.match(line):
                say(line)
        code = child.wait()
    finally:
        watchdog.end()
        stop_groups([child], PATIENCE)
        _alive.discard(child)
    if watchdog.verdict is not None:
        return Outcome("interrupted", watchdog.verdict)
    return Outcome("failed", "stopped") if stopping.is_set() and code else outcome(code, list(tail))


def outcome(code: int, lines: list[str]) -> Outcome:
    """From the exit status and the last lines of the process."""
    if code == 0:
        return Outcome("unchanged" if any("didn't change, skipping" in line for line in lines) else "built")
    text = "\n".join(lines)
    exit_line = _EXIT.search(text)
    # Shells report a signal as 128 + its number, Python as its negative.
    by_signal = code < 0 or (exit_line is not None and not 0 <= int(exit_line[1]) <= 128)
    return Outcome("interrupted" if by_signal or _LOCKED.search(text) else "failed", _error_line(lines))


def _error_line(lines: list[str]) -> str:
    """The line with the error: the command's own where there is one, else DVC's, else the last line."""
    for mark in ("Error: ", "ERROR: ", ""):
        if matches := [line for line in lines if line.startswith(mark) and line]:
            return matches[-1].removeprefix(mark)
    return "it ended without a word"


@contextmanager
def stopped_on_exit() -> Iterator[None]:
    """Stop children when an exception leaves the block (Ctrl-C, SIGTERM, a cancelled run), and where this process is
    killed, so that no orphan holds DVC's locks when the run is started again."""
    stopping.clear()
    tether = Tether()
    try:
        with tether.tie():
            yield
    except BaseException:
        stopping.set()
        stop_groups(list(_alive), PATIENCE)
        raise
    finally:
        tether.release()
