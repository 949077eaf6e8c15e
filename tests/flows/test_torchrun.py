"""A node of two processes (`launcher: torchrun`) in a flow, with Prefect's server: one of them is killed, then the run
is cancelled. Without GPUs they meet over gloo."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from cascade.launch.ui_servers import stop_groups
from cascade.layout import Layout
from tests.prefect_server import prefect_server
from tests.training.miniature import OPTIMIZER, make_checkpoint, packed_rows, write_rows

ROOT = Path(__file__).parents[2]
FLOW = """
import signal
from pathlib import Path
from prefect import flow
from cascade.recipe import load
from tasks.nodes import build
from tasks.processes import stopped_on_exit

def interrupt(*_):  # As Prefect's worker ends a run that is cancelled on its page.
    raise KeyboardInterrupt

@flow(name="cascade")
def one():
    with stopped_on_exit():
        return build("sft@sft", Path.cwd(), "", load(Path("params.yaml")).place("sft"), return_state=True)

signal.signal(signal.SIGTERM, interrupt)
one()
"""


def make_project(root: Path) -> None:
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    source = {"path": "rows.jsonl", "environment": "mcqa", "domain": "one", "sft": 1, "rl": 1, "benchmark": 1}
    node = {"init": "base", "round": 1, "epochs": 1.0, "batch": 2, "optimizer": OPTIMIZER, "checkpoint_every": 1}
    recipe = {
        "name": "small",
        "family": "small",
        "seed": 0,
        "base": "models/base",
        "threads": 1,
        "curation": {"sources": {"one": source}, "max_tokens": 12, "sequence_length": 12},
        "sft": {"sft": node},
        "evaluation": {"rollouts": 1, "rollout": {"max_new_tokens": 5}},
        "gate": {},
        "pools": {"sft": {"launcher": "torchrun", "gpus": 2}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    layout = Layout(root)
    make_checkpoint(root / "models" / "base", 0)
    write_rows(layout.sft_data / "part-0.parquet", packed_rows(4000))  # More steps than this test has time for.
    subprocess.run(["git", "init", "-q", root], check=True)


def ranks(root: Path) -> dict[str, int]:
    """Rank → process, of those that run in the project."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == root and b"RANK=" in (given := (process / "environ").read_bytes()):
                variables = dict(line.split(b"=", 1) for line in given.split(b"\0") if b"=" in line)
                if b"node\0sft" in (process / "cmdline").read_bytes():
                    found[variables[b"RANK"].decode()] = int(process.name)
        except (OSError, KeyError):
            continue  # It has ended.
    return found


def until(what: Callable[[], object], run: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.timeout(400)
def test_a_killed_rank_is_resumed_and_cancel_ends_all(tmp_path: Path) -> None:
    project, log = tmp_path / "project", tmp_path / "log"
    project.mkdir()
    make_project(project)
    state = Layout(project).work("sft") / "state.safetensors"
    (tmp_path / "prefect").mkdir()
    with prefect_server(tmp_path / "prefect") as url:
        given = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))}
        given |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home"), "CUDA_VISIBLE_DEVICES": ""}
        given["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
        with open(log, "wb") as output:
            command = [sys.executable, "-c", FLOW]
            run = subprocess.Popen(
                command, cwd=project, env=given, stdout=output, stderr=output, start_new_session=True
            )
        try:
            until(state.exists, run, log)
            os.kill(ranks(project)["1"], signal.SIGKILL)
            until(lambda: "resuming after step" in log.read_text(), run, log)
            before = state.stat().st_mtime_ns
            until(lambda: state.stat().st_mtime_ns > before, run, log)
            run.terminate()
            run.wait(timeout=60)
        finally:
            stop_groups([run], patience=10)
        assert not ranks(project)
        told = log.read_text()
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            (task,) = client.read_task_runs()
            names = [each.name for each in client.read_task_run_states(task.id)]
            (flow,) = client.read_flow_runs()
            logged = [line.message for line in client.read_logs()]
    # On the page: why it was interrupted, that it went on from a step, how the run ended.
    assert "process 1 of -m cascade node sft was ended by signal 9" in told
    assert names[:2] == ["Running", "AwaitingRetry"] or names[:3] == ["Pending", "Running", "AwaitingRetry"], names
    (resumed,) = re.findall(r"sft: resuming after step (\d+)", told)
    assert int(resumed) >= 1
    assert any("resuming after step" in message for message in logged), logged
    assert flow.state is not None
    assert not flow.state.is_completed()
    assert state.exists()  # A run after it goes on from here.
    assert not Layout(project).checkpoint("sft").exists()
