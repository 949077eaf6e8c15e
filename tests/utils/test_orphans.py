import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cascade.utils.orphans import Tether

PROGRAM = """
import os, signal, subprocess, sys
from cascade.utils.orphans import Tether
tether = Tether()
sleep = ["sleep", "60"]
with tether.tie():
    tied = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
free = subprocess.Popen(sleep)
print(tied.pid, int(tied.stdout.readline()), free.pid, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(*processes: int) -> None:
    deadline = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(how: str) -> list[int]:
    command = [sys.executable, "-c", PROGRAM, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        return [int(word) for word in program.stdout.readline().split()]


def test_what_is_tied_and_its_children_end_with_a_process_that_is_killed_or_forgets():
    for how in ("killed", "forgot"):
        tied, child, free = run(how)
        try:
            wait_until_gone(tied, child)
            assert alive(free)
        finally:
            os.kill(free, signal.SIGKILL)


def test_released_it_kills_nothing():
    tether = Tether()
    with tether.tie():
        process = subprocess.Popen(["sleep", "60"])
    tether.release()
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert "CASCADE_TETHER" not in os.environ
