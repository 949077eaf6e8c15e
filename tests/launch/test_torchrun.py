"""torchrun for real: two processes that add up over gloo, and what is left of them when they are stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.conftest import alive, pids, until

RUN = "import sys; from cascade.launch.torchrun import run; sys.exit(run(sys.argv[1:], 2))"


def start(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "node.py", how],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("add", 0, ""),
        ("fail", 1, "Error: no such thing"),
        ("die", 137, "process 0 of node.py die was ended by signal 9"),
    ],
)
def test_it_ends_as_the_first_process_that_failed(project: Path, how: str, code: int, said: str) -> None:
    launcher = start(how)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == code, err
    assert sorted(out.splitlines())[:2] == ["rank 0 of 2 at 127.0.0.1", "rank 1 of 2 at 127.0.0.1"]
    assert out.count("sum 3") == (2 if how == "add" else 0)
    assert [line for line in err.splitlines() if line.strip()] == ([said] if said else [])
    assert not any(map(alive, pids(project, 2)))


def test_sigterm_ends_them(project: Path) -> None:
    launcher = start("wait")
    running = pids(project, 2)
    launcher.terminate()
    launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGTERM
    assert not any(map(alive, running))


def test_killing_the_launcher_ends_processes_that_ignore_sigterm(project: Path) -> None:
    launcher = start("stubborn")
    running = pids(project, 2)
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=10)
    until(lambda: not any(map(alive, running)), 10)
