"""A node as a Slurm job, against executables that behave as Slurm's do."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cascade.errors import CascadeError
from cascade.launch import slurm
from cascade.launch.job import INTERRUPTED, Job
from cascade.launch.launcher import launched
from cascade.layout import Layout
from cascade.recipe import Placement
from tests.launch.conftest import HERE, alive, pids, until


@pytest.fixture
def cluster(tools: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(slurm, "POLL", 0.1)
    return tools("fake_slurm.py")


def job(project: Path, *program: str, **place: object) -> Job:
    return Job(list(program), Placement(launcher="slurm", **place), Layout(project), together=True)


def test_two_machines_have_their_ranks_and_their_output_comes_through(
    project: Path, cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = job(project, "node.py", "say", machines=2, gpus=1, options=["--partition=gpu", "--time=4:00:00"])
    assert slurm.run(asked) == 0
    told = capfd.readouterr().err
    assert sorted(line for line in told.splitlines() if line.startswith("rank")) == [
        f"rank {rank} of 2 at 127.0.0.1" for rank in range(2)
    ]
    options = (cluster / "1.options").read_text().splitlines()
    for option in ("--nodes=2", "--gpus-per-node=1", "--ntasks-per-node=1", "--dependency=singleton", "--time=4:00:00"):
        assert option in options


def test_the_status_of_a_failed_job_is_the_nodes(project: Path, cluster: Path, capfd: pytest.CaptureFixture) -> None:
    assert slurm.run(job(project, "node.py", "die")) == 128 + signal.SIGKILL
    assert "process 0 of node.py die was ended by signal 9\n" in capfd.readouterr().err


CANCELLED = """
import sys
from pathlib import Path
from cascade.launch import slurm
from cascade.launch.job import Job
from cascade.layout import Layout
from cascade.recipe import Placement
slurm.POLL = 0.1
sys.exit(slurm.run(Job(["node.py", "stubborn"], Placement(launcher="slurm", gpus=2), Layout(Path.cwd()), True)))
"""


def test_stopping_the_launcher_ends_every_process_of_the_job(project: Path, cluster: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", CANCELLED], start_new_session=True)
    running = pids(project, 2)
    os.killpg(launcher.pid, signal.SIGTERM)
    assert launcher.wait(20) == INTERRUPTED
    assert (cluster / "1.state").read_text() == "CANCELLED"
    until(lambda: not any(map(alive, running)), 20)


def test_a_job_left_behind_is_cancelled_and_the_next_one_waiting_reasons_its_end(project: Path, cluster: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", CANCELLED], start_new_session=True)
    left = pids(project, 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    for rank in range(2):
        (project / "pids" / str(rank)).unlink()
    second = subprocess.Popen([sys.executable, "-c", CANCELLED], start_new_session=True)
    pids(project, 2)
    assert not any(map(alive, left))
    assert (cluster / "1.state").read_text() == "CANCELLED"
    os.killpg(second.pid, signal.SIGTERM)
    assert second.wait(20) == INTERRUPTED


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL"])
def test_a_job_ended_from_outside_is_to_be_resumed(
    project: Path, cluster: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_state", lambda number: (state, 0, ""))
    assert slurm.run(job(project, "-c", "pass")) == INTERRUPTED


def test_the_command_of_the_stage_runs_in_the_job(
    project: Path, cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((HERE.parents[1] / "recipes" / "nano-mopd.yaml").read_text())
    content["pools"] = {"select_teachers": {"launcher": "slurm", "machines": 4, "gpus": 8}}
    (project / "params.yaml").write_text(yaml.safe_dump(content))
    assert not launched("node", "sft", Layout(project))  # Without an entry it is this process's to build.
    with pytest.raises(SystemExit, match="1"):
        launched("node", "select_teachers", Layout(project))
    assert "Error: " in capfd.readouterr().err  # The node's own words: nothing has been evaluated here.
    options = (cluster / "1.options").read_text()
    assert "--nodes=1\n" in options  # A decision is made by one process.


def test_a_refused_job_is_one_line(project: Path, cluster: Path) -> None:
    (cluster / "down").touch()
    with pytest.raises(CascadeError, match=r"^sbatch --parsable: sbatch: error: .* Invalid partition name specified$"):
        slurm.run(job(project, "-c", "pass"))


def test_without_slurm_it_says_where_it_must_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CascadeError, match="scancel: not on this machine; start the pool's worker where it is"):
        slurm.run(job(project, "-c", "pass"))


def test_a_container_has_the_project_and_its_own_python(project: Path) -> None:
    script = slurm.script(job(project, "-m", "cascade", "node", "sft", image="cascade.sqsh", gpus=8, machines=4))
    start = script.splitlines()[-1]
    assert start.startswith("exec srun --kill-on-bad-exit=1 --container-image=cascade.sqsh ")
    assert f"--container-mounts={project}:{project} --container-workdir={project} python -m cascade.launch" in start
    assert start.endswith(
        '--machines 4 --processes 8 --machine-from SLURM_NODEID --meeting "$MEETING" -- -m cascade node sft'
    )
