import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.utils.worker_process import WorkerProcess
from tests.launch.conftest import alive, until

ANSWER = "tests.utils.worker_jobs:answer"


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    started = WorkerProcess(ANSWER)
    yield started
    started.kill()


def test_a_worker_answers_in_a_process_of_its_own_until_its_pipe_is_closed(worker):
    worker.send("pid")
    pid = worker.receive("asking")
    assert pid != os.getpid()
    with tempfile.TemporaryFile() as file:
        file.write(b"what is in it")
        file.flush()
        worker.send("file")
        worker.send_file(file.fileno())
        assert worker.receive("reading") == "what is in it"
    worker.finish()
    assert not alive(pid)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("fail on-purpose", "^on-purpose$"),
        ("die", "^counting: its process ended with status -9; run it again$"),
        ("break it", "^counting: its process ended with status 1; run it again$"),
    ],
)
def test_how_a_worker_ended_is_said_in_a_line(worker, message, error):
    worker.send(message)
    with pytest.raises(CascadeError, match=error):
        worker.receive("counting")
    worker.send("pid")  # Nobody reads it, and nothing is raised.


def test_a_spawned_worker_at_work_dies_with_its_parent(tmp_path: Path):
    program = f"""
from cascade.utils.worker_process import WorkerProcess
worker = WorkerProcess({ANSWER!r})
worker.send("work {tmp_path}/pid")
worker.receive("sleeping")
"""
    environment = {k: v for k, v in os.environ.items() if k != "CASCADE_FORK_SERVER"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[2])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    parent.kill()
    parent.wait()
    until(lambda: not alive(pid))
