"""A node as a Kubernetes job, against a kubectl whose pods are processes of this machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.launch import kubernetes
from cascade.launch.job import INTERRUPTED, Job
from cascade.layout import Layout
from cascade.recipe import Placement
from tests.launch.conftest import HERE, alive, pids, until


@pytest.fixture
def cluster(project: Path, tools: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kubernetes, "POLL", 0.1)
    (project / "job.yaml").write_text((HERE.parents[1] / "flows" / "kubernetes.yaml").read_text())
    return tools("fake_kubectl.py")


def job(project: Path, *program: str, **place: object) -> Job:
    where = {"launcher": "kubernetes", "image": "cascade:1", "manifest": "job.yaml", **place}
    return Job(list(program), Placement(**where), Layout(project), together=True)


def test_the_first_pod_is_heard_and_everything_is_deleted(
    project: Path, cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert kubernetes.run(job(project, "node.py", "say", machines=2, gpus=1)) == 0
    told = capfd.readouterr().err.splitlines()
    assert "rank 0 of 2 at 127.0.0.1" in told
    assert "rank 1 of 2 at 127.0.0.1" not in told
    assert not (cluster / "job.json").exists()


def test_the_manifest_is_filled_in(project: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_RUN_ID", "run-7")
    asked = job(project, "-m", "cascade", "node", "sft", machines=4, gpus=8)
    made, service = kubernetes.manifest(asked)
    name = asked.name
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == (name, "cascade")
    spec = made["spec"]
    assert [spec[key] for key in ("completions", "parallelism", "completionMode", "backoffLimit")] == [
        4,
        4,
        "Indexed",
        0,
    ]
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["subdomain"]) == ("Never", name)
    [container] = pod["containers"]
    assert container["image"] == "cascade:1"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert {"name": "CASCADE_RUN_ID", "value": "run-7"} in container["env"]
    assert container["command"] == (
        f"python -m cascade.launch.torchrun --machines 4 --processes 8 --machine-from JOB_COMPLETION_INDEX "
        f"--meeting {name}-0.{name}:29500 -- -m cascade node sft"
    ).split(" ")
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == (name, "None")
    assert service["spec"]["selector"] == spec["template"]["metadata"]["labels"]
    assert len(kubernetes.manifest(job(project, "-c", "pass"))) == 1


def test_a_failed_pod_fails_the_node_with_its_status(
    project: Path, cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert kubernetes.run(job(project, "node.py", "fail", machines=2, gpus=1)) == 1
    assert "1-abcde] Error: no such thing" in capfd.readouterr().err


CANCELLED = """
import sys
from pathlib import Path
from cascade.launch import kubernetes
from cascade.launch.job import Job
from cascade.layout import Layout
from cascade.recipe import Placement
kubernetes.POLL = 0.1
place = Placement(launcher="kubernetes", image="x", manifest="job.yaml", gpus=2)
sys.exit(kubernetes.run(Job(["node.py", "stubborn"], place, Layout(Path.cwd()), True)))
"""


def test_stopping_the_launcher_ends_every_process_of_the_job(project: Path, cluster: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", CANCELLED], start_new_session=True)
    running = pids(project, 2)
    os.killpg(launcher.pid, signal.SIGTERM)
    assert launcher.wait(20) == INTERRUPTED
    assert not (cluster / "job.json").exists()
    until(lambda: not any(map(alive, running)), 20)


def pod(code: int, finished: str, disrupted: bool = False) -> dict:
    conditions = [{"type": "DisruptionTarget", "status": "True"}] if disrupted else []
    terminated = {"exitCode": code, "finishedAt": finished}
    return {"status": {"containerStatuses": [{"state": {"terminated": terminated}}], "conditions": conditions}}


@pytest.mark.parametrize(
    ("pods", "status"),
    [
        ([pod(143, "2026-01-01T00:00:09Z"), pod(1, "2026-01-01T00:00:05Z")], 1),
        ([pod(137, "2026-01-01T00:00:01Z"), pod(1, "2026-01-01T00:00:05Z")], 137),
        ([pod(0, "2026-01-01T00:00:01Z"), pod(1, "2026-01-01T00:00:05Z", disrupted=True)], INTERRUPTED),
        ([], INTERRUPTED),
    ],
)
def test_the_status_is_that_of_the_pod_that_failed_first(pods: list[dict], status: int) -> None:
    assert kubernetes.exit_status(pods) == status


def test_a_wait_says_what_it_waiting_reasons() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/9 nodes are available: insufficient GPUs"}
    pulling = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    pods = [{"status": {"phase": "Pending", "conditions": [condition]}}, {"status": pulling}]
    assert kubernetes._waiting_reasons(pods) == "0/9 nodes are available: insufficient GPUs; ImagePullBackOff"


def test_a_job_deleted_by_others_is_to_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "call", lambda *command, stdin=None: json.dumps({"items": []}))
    assert kubernetes._watch(kubernetes._Cluster("x", None)) == INTERRUPTED


@pytest.mark.parametrize("text", ["kind: Job", "[", "spec: {template: {spec: {containers: []}}}"])
def test_a_manifest_that_is_none_is_one_line(project: Path, text: str) -> None:
    (project / "job.yaml").write_text(text)
    with pytest.raises(CascadeError, match=r"job\.yaml: not the manifest of a Job with one container"):
        kubernetes.manifest(job(project, "-c", "pass"))
