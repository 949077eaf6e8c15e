"""DVC as a place of work: the whole cascade's graph with stand-ins for what its stages make."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from cascade.utils.files import write_atomic
from tasks.processes import Outcome, run_stage, stopped_on_exit
from tests.speed import in_imports_of_dvc

ROOT = Path(__file__).parents[1]
RECIPE = "nano"
FILES = {".json": '{"teachers": {}, "math": 0.5}\n', ".jsonl": "{}\n", ".parquet": "PAR1", ".yaml": "{}\n"}
CSV = {
    "steps.csv": "step,train/loss,train/entropy\n0,1.0,0.5\n1,0.9,0.4\n",
    "rewards.csv": "step,domain,reward\n0,math,0.5\n1,math,0.6\n",
    "lengths.csv": "step,domain,length\n0,math,31.0\n1,math,30.0\n",
    "heat_map.csv": "node,domain,score\nsft,math,0.5\n",
    "recovery.csv": "node,domain,start,after,teacher\nmopd,math,0.5,0.6,0.7\n",
    "prompts.csv": "domain,prompt_id\n",
}


def copy_project(folder: Path) -> None:
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    shutil.copy(ROOT / "recipes" / f"{RECIPE}.yaml", folder / "params.yaml")
    write_atomic(folder / "models" / "base" / "config.json", "{}")
    subprocess.run(["git", "init", "-q", folder], check=True)


def stand_in(path: Path) -> None:
    if path.suffix == ".csv":
        write_atomic(path, CSV[path.name])
    elif path.suffix:
        write_atomic(path, FILES[path.suffix])
    else:
        write_atomic(path / "content", path.name)


def dvc(project: Path, *arguments: str) -> str:
    told = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=project, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def git(project: Path, *arguments: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *arguments], cwd=project, check=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built, as far as DVC can tell, and committed."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    copy_project(folder)
    with Repo(str(folder)) as repo:
        outs = [Path(str(out)) for stage in repo.index.stages for out in stage.outs]
    for out in outs:
        stand_in(folder / out)
    dvc(folder, "commit", "--force", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "built")
    return folder


def test_a_repro_with_nothing_to_do_takes_seconds(project: Path) -> None:
    told, cost = in_imports_of_dvc(lambda: dvc(project, "repro"))
    assert cost < 10
    assert "Data and pipelines are up to date" in told


def test_checkpoints_are_not_kept_twice(project: Path) -> None:
    """On a file system without reflinks, as on one with them."""
    cached = {path.stat().st_ino for path in (project / ".dvc" / "cache").rglob("*") if path.is_file()}
    for node in ("sft", "if_rl", "mopd"):
        assert (project / "models" / node / "content").stat().st_ino in cached


def test_a_linked_checkpoint_is_replaced_without_touching_the_cache(project: Path) -> None:
    path = project / "models" / "if_rl" / "content"
    kept = path.stat().st_ino
    with open(path) as old:
        write_atomic(path, "trained anew")
        assert path.stat().st_ino != kept
        assert old.read() == "if_rl"
    dvc(project, "checkout", "--force", "--quiet")
    assert path.read_text() == "if_rl"


def test_every_stage_but_decisions_can_be_taken_back_from_the_run_cache() -> None:
    """DVC does so only where each output is cached, a metric or a plot."""
    decisions = set()
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        if any(isinstance(out, dict) for out in stage.get("do", stage)["outs"]):
            decisions.add(name)
    assert decisions == {"teachers", "gate"}


def test_what_goes_into_git_is_small_and_text(project: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "results", "data", "models"], cwd=project, capture_output=True, text=True
    )
    kinds = {Path(path).parts[:2] for path in listed.stdout.splitlines()}
    assert kinds == {("results", kind) for kind in ("scores", "training", "decisions", "plots")} | {("models", "base")}
    assert not [path for path in listed.stdout.splitlines() if path.endswith((".parquet", ".safetensors"))]


def test_plots_show_rewards_lengths_heat_map_and_recovery(project: Path) -> None:
    dvc(project, "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text()
    for title in ("sft: loss", "if_rl: reward", "if_rl: response length in tokens", "mopd: entropy in nats"):
        assert title in page
    assert '"datum.value < 0.5"' in page
    assert '"x2": {"field": "teacher"}' in page
    assert "DVC_METRIC" not in page


def test_metrics_diff_names_the_node_and_the_domain(project: Path) -> None:
    path = project / "results" / "scores" / "sft.json"
    original = path.read_text()
    path.write_text('{"teachers": {}, "math": 0.75}')
    try:
        changes = json.loads(dvc(project, "metrics", "diff", "--json"))
        dvc(project, "plots", "diff", "HEAD")
    finally:
        path.write_text(original)
    assert changes == {"results/scores/sft.json": {"math": {"old": 0.5, "new": 0.75, "diff": 0.25}}}


def test_what_was_pushed_is_pulled_into_a_clone(project: Path) -> None:
    dvc(project, "push", "--quiet")
    clone = project.with_name("clone")
    git(project, "clone", "-q", str(project), str(clone))
    dvc(clone, "pull", "--quiet")
    assert (clone / "models" / "mopd" / "content").read_text() == "mopd"
    assert "up to date" in dvc(clone, "status")
    assert (project.parent / "cascade-store").is_dir()


def test_stages_side_by_side_do_not_lock_each_other_out(tmp_path: Path) -> None:
    """Four at once, while DVC's lock is held for longer than its own patience of three seconds: as by a stage that
    hashes a large checkpoint."""
    copy_project(tmp_path)
    stage = "  {0}:\n    cmd: sleep 1 && echo {0} > {0}\n    deps: [params.yaml]\n    outs: [{0}]\n"
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(stage.format(name) for name in "abcd"))
    ended: dict[str, Outcome] = {}

    def build(name: str) -> None:
        ended[name] = run_stage(name, tmp_path, "", lambda line: None)

    threads = [threading.Thread(target=build, args=(name,)) for name in "abcd"]
    with stopped_on_exit():  # As a flow does: it also forgets that an earlier run was stopped.
        with Repo(str(tmp_path)) as repo, repo.lock:
            for thread in threads:
                thread.start()
            time.sleep(5)
        for thread in threads:
            thread.join(60)
    assert {name: end.kind for name, end in ended.items()} == dict.fromkeys("abcd", "built"), ended
    assert sorted(yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]) == list("abcd")


@pytest.mark.parametrize(
    ("stage", "gone", "told"),
    [
        ("sft@sft", "models/base", "models/base: no such file or directory; no stage makes it; put it there"),
        ("rl@if_rl", "models/sft", "models/sft: no such file or directory; `dvc repro sft@sft` makes it"),
        (
            "distill@mopd",
            "results/decisions/select_teachers.json",
            "results/decisions/select_teachers.json: no such file or directory; "
            "`dvc repro teachers@select_teachers` makes it",
        ),
        ("gate@release", "results/lineage/7", "results/lineage/7: no such file or directory; `dvc repro evaluate-"),
        ("gate@release", "params.yaml", "params.yaml: no such file; `cascade recipe use nano`"),
        ("rl@if_rl", "params.yaml:judges", "params.yaml: judges: missing; DVC compares every key of a stage"),
    ],
)
@pytest.mark.parametrize("anew", [False, True])
def test_a_stage_that_lacks_an_input_keeps_what_it_made(
    project: Path, tmp_path: Path, stage: str, gone: str, told: str, anew: bool
) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, symlinks=True)
    path, _, key = gone.partition(":")
    if key:
        content = yaml.safe_load((copy / path).read_text())
        del content[key]
        (copy / path).write_text(yaml.safe_dump(content))
    elif (copy / path).is_dir():
        shutil.rmtree(copy / path)
    else:
        (copy / path).unlink()
    with Repo(str(project)) as repo:
        outs = [
            Path(out.fs_path).relative_to(project) for out in repo.stage.load_one(str(project / "dvc.yaml"), stage).outs
        ]
    kept = {out for out in outs if (copy / out).exists()}
    with stopped_on_exit():
        ended = run_stage(stage, copy, "", lambda line: None, anew)
    assert ended.kind == "failed"
    assert told in ended.message
    assert kept == {out for out in outs if (copy / out).exists()} == set(outs)


def test_a_queued_trial_has_the_environment_of_the_queues_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    dvc(tmp_path, "init", "--quiet")
    told = tmp_path / "told"
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  a:\n    cmd: echo $PROBE > {told}\n    params: [x]\n")
    (tmp_path / "params.yaml").write_text("x: 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "begun")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    monkeypatch.setenv("PROBE", "queued")
    # The queue's worker is the program `dvc`; where it is not found, nothing runs and nobody says so.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    dvc(tmp_path, "exp", "run", "--queue", "--quiet", "-S", "x=2")
    monkeypatch.setenv("PROBE", "started")
    try:
        dvc(tmp_path, "queue", "start", "--quiet")
        end = time.monotonic() + 60
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        dvc(tmp_path, "queue", "stop", "--quiet")
    assert told.read_text() == "started\n"
