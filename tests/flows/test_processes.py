"""Stages as processes, against a real DVC project of shell commands."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks import processes
from tasks.inputs import missing_input
from tasks.processes import outcome, run_stage, stopped_on_exit

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  good:
    cmd: echo working && echo $CASCADE_RUN_ID > good
    outs: [good]
  empty:
    cmd: ": > samples.jsonl; : > scores.json"
    outs: [samples.jsonl, scores.json]
  bad:
    cmd: "echo 'Error: rl.if_rl: no such thing' >&2; exit 1"
    outs: [bad]
  killed:
    cmd: exec sh -c 'kill -9 $$'
    outs: [killed]
  long:
    cmd: "sh -c 'trap \\"\\" TERM; echo $$ > pid; while :; do sleep 0.1; done'"
    outs: [long]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    return tmp_path


def test_a_stage_is_built_once_and_its_lines_come_through(project: Path) -> None:
    lines: list[str] = []
    assert run_stage("good", project, "run-7", lines.append).kind == "built"
    assert lines == ["> echo working && echo $CASCADE_RUN_ID > good", "working"]
    assert (project / "good").read_text() == "run-7\n"
    assert run_stage("good", project, "run-8", lines.append).kind == "unchanged"
    assert (project / "good").read_text() == "run-7\n"


def test_a_node_without_samples_is_no_cause_for_a_warning(project: Path) -> None:
    lines: list[str] = []
    assert run_stage("empty", project, "", lines.append).kind == "built"
    assert lines[1:] == ["WARNING: 'scores.json' is empty."]


def test_a_command_that_says_no_has_failed_with_its_own_words(project: Path) -> None:
    ended = run_stage("bad", project, "", lambda line: None)
    assert (ended.kind, ended.message) == ("failed", "rl.if_rl: no such thing")


def test_a_killed_command_was_interrupted(project: Path) -> None:
    assert run_stage("killed", project, "", lambda line: None).kind == "interrupted"


def test_inputs_are_checked_by_many_threads_at_once(project: Path) -> None:
    """DVC by itself finds dvc.yaml wrong then."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, project / name)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = set(threads.map(lambda _: missing_input("sft@sft", project), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert found == {"data/sft: no such file or directory; `dvc repro curate` makes it"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_leaving_the_block_stops_children_that_ignore_sigterm(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run_stage("long", project, "", lambda line: None)))

    def start_and_fail() -> None:
        thread.start()
        while not (project / "pid").exists() or not (project / "pid").read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), stopped_on_exit():
        start_and_fail()
    thread.join(20)
    assert not thread.is_alive()
    assert ended[0].kind == "failed"
    assert not alive(int((project / "pid").read_text()))


FLOW = """
import sys
from pathlib import Path
from tasks.processes import run_stage, stopped_on_exit
with stopped_on_exit():
    run_stage("long", Path.cwd(), "", lambda line: None)
"""


def test_stages_do_not_outlive_a_flow_that_is_killed(project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    flow = subprocess.Popen([sys.executable, "-c", FLOW], cwd=project, env=environment)
    deadline = time.monotonic() + 60
    while not (project / "pid").exists() or not (project / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stage = int((project / "pid").read_text())
    flow.kill()
    flow.wait()
    while alive(stage):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (project / "pid").unlink()
    # Nobody holds DVC's locks: another stage can be built at once.
    with stopped_on_exit():
        ended = run_stage("good", project, "run-9", lambda line: None)
    assert ended.kind == "built", ended.message


@pytest.mark.parametrize(
    ("code", "lines", "kind", "message"),
    [
        (0, ["Running stage 'x':"], "built", ""),
        (0, ["Stage 'x' didn't change, skipping"], "unchanged", ""),
        (255, ["Error: a", "ERROR: failed to run: cascade node x, exited with 1"], "failed", "a"),
        (255, ["ERROR: failed to run: cascade node x, exited with -9"], "interrupted", None),
        (255, ["ERROR: failed to run: cascade node x, exited with 137"], "interrupted", None),
        (255, ["ERROR: failed to run: cascade node x, exited with 143"], "interrupted", None),
        (255, ["ERROR: Unable to acquire lock. Most likely another DVC process is running"], "interrupted", None),
        (-signal.SIGKILL, [], "interrupted", "it ended without a word"),
        (1, ["Traceback", "ValueError: x"], "failed", "ValueError: x"),
    ],
)
def test_outcomes(code: int, lines: list[str], kind: str, message: str | None) -> None:
    ended = outcome(code, lines)
    assert ended.kind == kind
    assert message is None or ended.message == message
