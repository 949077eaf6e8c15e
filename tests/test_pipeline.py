"""The whole pipeline, smaller than nano, from raw data to the gate: by `cascade run` and by `dvc repro`."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.overhead import covered, newest_run, work
from cascade.layout import Layout
from cascade.utils.files import hash_directory, hash_file, read_json
from flows.unchanged import is_unchanged
from tests.speed import in_imports_of_dvc

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(900)

DOMAINS = ("instruction_following", "mcqa")
NODES = ("sft", "if_rl", "mopd", "mend", "sft_int2", "sft_int2_qad")
ROLLOUT = {"max_new_tokens": 40}
SEARCH = {
    "init": "if_rl",
    "benchmark": "mcqa",
    "problems": 3,
    "strategy": {
        "name": "generate-verify-refine",
        "candidates": 2,
        "verifications": 2,
        "keep": 1,
        "critiques": 1,
        "refinements": 1,
        "rounds": 2,
        "grades": 1,
    },
    "budget": {"generations": 9},
    "rollout": ROLLOUT,
}


def small_recipe() -> dict:
    """The nano recipe with two domains, one RL node and a few steps, and a solve node."""
    recipe = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    sources = recipe["curation"]["sources"]
    recipe["curation"]["sources"] = {
        name: {**source, "levels": {1: 1.0}, "sft": 100, "rl": 40, "benchmark": 40, "held_out": 40}
        for name, source in sources.items()
        if name in DOMAINS
    }
    # Long enough to finish an answer: if all were overlong, no group would have an advantage.
    steps = {"steps": 3, "prompts": 4, "rollouts": 4, "rollout": {"max_new_tokens": 96}}
    recipe |= {"name": "small", "family": "small", "threads": 1}
    recipe["sft"]["sft"] |= {"epochs": 1.0, "batch": 8}
    recipe["rl"] = {"if_rl": {**recipe["rl"]["if_rl"], **copy.deepcopy(steps)}}
    recipe["teachers"]["select_teachers"] |= {"candidates": ["sft", "if_rl"], "domains": {"mcqa": ["sft"]}}
    mix = {"instruction_following": 0.5, "mcqa": 0.5}
    recipe["distill"]["mopd"] |= {**steps, "rollouts": 2, "init": "if_rl", "mix": mix}
    distillation = copy.deepcopy(recipe["distill"]["mopd"])
    del distillation["teachers"]
    order = {"init": "mopd", "reads_round": 2, "round": 3, "against": ["sft", "if_rl"], "budget": 1.0}
    recipe["repair"] = {"mend": {**distillation, **order}}
    recipe["evaluation"] = {"rollouts": 2, "rollout": ROLLOUT}
    gate = {"round": 3, "candidate": "mend", "against": ["sft", "if_rl", "mopd"], "registered_name": "small"}
    recipe["gate"]["release"] |= {**gate, "budget": 1.0}
    recipe["solve"] = {"search": copy.deepcopy(SEARCH)}
    # Two bits lose all, and a few steps win back what passes a lenient gate.
    rules = {"significance": 0.5, "budget": 0.0}
    optimizer = {**recipe["sft"]["sft"]["optimizer"], "learning_rate": 2e-3}
    order = {"init": "sft_int2", "reads_round": 1, "round": 2}
    recipe["quantize"] = {"sft_int2": {"init": "sft", "round": 1, "format": "int2", "rows": 2}}
    recipe["qad"] = {"sft_int2_qad": {**order, **rules, "steps": 40, "batch": 3, "optimizer": optimizer}}
    gate = {"round": 2, "candidate": "sft_int2_qad", "registered_name": "small", "budget": 0.0, "minimum_effect": 0.45}
    recipe["gate"]["release_int2"] = gate
    return recipe


def make_project(folder: Path) -> Path:
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in (".dvc/plots", "models/base"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(small_recipe(), sort_keys=False))
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def start(project: Path, *module: str) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The same project built by `cascade run` and, up to distillation, by `dvc repro`; and what the first printed."""
    by_flow = make_project(tmp_path_factory.mktemp("flow"))
    by_dvc = make_project(tmp_path_factory.mktemp("dvc"))
    processes = [start(by_flow, "cascade", "run"), start(by_dvc, "dvc", "repro", "distill@mopd", "solve@search")]
    try:
        told = [finish(process) for process in processes]
    finally:
        for process in processes:
            process.terminate()
    return by_flow, by_dvc, told[0]


def test_everything_is_there(built: tuple[Path, Path, str]) -> None:
    project, _, told = built
    for node in NODES:
        assert (project / "models" / node / "model.safetensors").exists()
        assert set(read_json(project / "results" / "scores" / f"{node}.json")) == set(DOMAINS)
        assert node in told
    for domain in DOMAINS:
        assert pq.read_table(project / "data" / "benchmarks" / f"{domain}.parquet").num_rows == 40
    choice = read_json(project / "results" / "decisions" / "select_teachers.json")["teachers"]
    assert choice["mcqa"]["node"] == "sft"
    assert choice["instruction_following"]["node"] in ("sft", "if_rl")
    assert read_json(project / "results" / "decisions" / "release.json")["candidate"] == "mend"
    check = read_json(project / "results" / "decisions" / "mend.json")
    unchanged = hash_directory(project / "models" / "mend") == hash_directory(project / "models" / "mopd")
    assert unchanged == (not check["regressed"])
    assert (project / "report" / "index.html").exists()
    assert "Where to look next" in told


def test_a_solve_node_is_searched_published_and_reported(built: tuple[Path, Path, str]) -> None:
    by_flow, by_dvc, told = built
    folder = Path("results") / "solutions" / "search"
    summary = read_json(by_flow / folder / "summary.json")
    assert summary["problems"] == 3
    assert summary["checkpoints"] == {"if_rl": hash_directory(by_flow / "models" / "if_rl")}
    for file in ("trail.jsonl", "answers.jsonl", "manifest.json", "curve.csv"):
        assert (by_flow / folder / file).read_bytes() == (by_dvc / folder / file).read_bytes(), file
    assert "search" in told
    assert '<h3 id="search">' in (by_flow / "report" / "index.html").read_text()
    client = MlflowClient(f"sqlite:///{by_flow / 'mlflow' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments, "attributes.run_name = 'search'")
    assert run.data.metrics["solve/score"] == summary["score"]
    assert run.data.metrics["solve/spent/generations"] == summary["spent"]["generations"]


def test_a_quantised_release_is_checked_distilled_and_registered(built: tuple[Path, Path, str]) -> None:
    project, _, told = built
    check = read_json(project / "results" / "decisions" / "sft_int2_qad.json")
    assert "mcqa" in check["regressed"]
    assert {teacher["node"] for teacher in check["teachers"].values()} == {"sft"}
    distilled = hash_directory(project / "models" / "sft_int2_qad")
    assert distilled != hash_directory(project / "models" / "sft_int2")
    assert read_json(project / "results" / "decisions" / "release_int2.json")["passed"]
    assert "sft_int2: int2, 28 % of the size of sft" in told
    client = MlflowClient(f"sqlite:///{project / 'mlflow' / 'mlflow.db'}")
    version = client.get_model_version_by_alias("small", "champion-int2")
    assert (version.tags["node"], version.tags["format"]) == ("sft_int2_qad", "int2")
    assert version.tags["checkpoint_hash"] == distilled
    assert client.get_run(version.run_id).info.run_name == "release_int2"


def test_training_changed_the_weights(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    weights = [hash_file(project / "models" / node / "model.safetensors") for node in ("base", "sft", "if_rl", "mopd")]
    assert len(set(weights)) == 4


def test_dvc_repro_alone_gives_the_same(built: tuple[Path, Path, str]) -> None:
    by_flow, by_dvc, _ = built
    for folder in ("data/sft", "data/rl", "data/benchmarks", "models/sft", "models/if_rl", "models/mopd"):
        assert hash_directory(by_flow / folder) == hash_directory(by_dvc / folder), folder
    for node in ("sft", "if_rl"):
        for file in ("prompts.csv", "summary.json"):
            path = Path("results") / "evaluations" / node / file
            assert (by_flow / path).read_bytes() == (by_dvc / path).read_bytes(), path


def test_every_process_of_the_run_says_when_it_worked(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    pipeline, run = newest_run(Layout(project))
    found = work(Layout(project), pipeline)
    evaluations = {f"{node}, evaluation" for node in NODES}
    assert sorted(what for what, _ in found) == sorted(
        {"curate", "select_teachers", "release", "release_int2", "search", *NODES, *evaluations}
    )
    assert all(run[0] < begin < end < run[1] for _, (begin, end) in found)
    assert 0 < covered([span for _, span in found], run) < run[1] - run[0]


def test_a_second_run_does_nothing_and_says_so(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    before = {path: path.stat().st_mtime_ns for path in (project / "models").rglob("*")}
    for _ in range(2):  # DVC is asked, and then need not be.
        told, cost = in_imports_of_dvc(lambda: finish(start(project, "cascade", "run")))
        assert cost < 10
        assert "Nothing changed: every node of small is up to date" in told
    assert is_unchanged(Layout(project))
    assert {path: path.stat().st_mtime_ns for path in (project / "models").rglob("*")} == before


def test_a_change_downstream_rebuilds_only_what_depends_on_it(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    recipe = yaml.safe_load((project / "params.yaml").read_text())
    recipe["gate"]["release"]["minimum_effect"] = 0.9
    original = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    try:
        stale = finish(start(project, "dvc", "status", "--json"))
    finally:
        (project / "params.yaml").write_text(original)
    assert set(yaml.safe_load(stale)) == {"gate@release"}


def test_metrics_show_is_the_score_matrix(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    shown = yaml.safe_load(finish(start(project, "dvc", "metrics", "show", "--json")))
    files = shown[""]["data"]
    assert {Path(path).stem: set(found["data"]) for path, found in files.items()} == {
        **{node: set(DOMAINS) for node in NODES},
        "search": {"mcqa"},
    }


def test_plots_can_be_drawn(built: tuple[Path, Path, str]) -> None:
    project, _, _ = built
    finish(start(project, "dvc", "plots", "show"))
    assert "if_rl: reward" in (project / "dvc_plots" / "index.html").read_text()
