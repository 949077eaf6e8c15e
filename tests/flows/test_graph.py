"""DVC's graph, the recipe and the flow say the same."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe, load
from flows import run
from flows.run import stale_stages
from tasks.nodes import evaluation_of, stage_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvc/config", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def ancestors(graph: dict[str, set[str]], stage: str) -> set[str]:
    return set().union(*({parent} | ancestors(graph, parent) for parent in graph[stage]))


def flow_graph(recipe: Recipe) -> dict[str, set[str]]:
    """Stage → stages it waits for, as flows/cascade.py submits them."""
    graph: dict[str, set[str]] = {CURATE: set()}
    for name in recipe.ordered():
        stage = stage_of(recipe, name)
        graph[stage] = {evaluation_of(recipe, member) for member in recipe.awaited(name)}
        if name in recipe.training or name in recipe.solve:
            graph[stage] |= {CURATE, *(stage_of(recipe, parent) for parent in recipe.parents(name))}
        if name in recipe.training:
            graph[evaluation_of(recipe, name)] = {stage}
    return graph


@pytest.mark.parametrize("name", ["nano", "nano-test-time", "nano-quantized", "nemotron-cascade-2-30b-a3b"])
def test_dvc_orders_the_stages_as_the_flow_does(project: Path, name: str) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / f"{name}.yaml").read_text())
    with Repo(str(project)) as repo:
        found = repo.index.graph
        dvc = {stage.addressing: {parent.addressing for parent in found.successors(stage)} for stage in found}
    ours = flow_graph(load(project / "params.yaml"))
    assert set(dvc) == set(ours)
    assert {stage: ancestors(dvc, stage) for stage in dvc} == {stage: ancestors(ours, stage) for stage in ours}


def test_teachers_wait_for_every_candidate_and_the_gate_for_all(project: Path) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml").read_text())
    recipe = load(project / "params.yaml")
    graph = flow_graph(recipe)
    candidates = {evaluation_of(recipe, name) for name in recipe.teachers["select_teachers"].candidates}
    assert candidates <= graph["teachers@select_teachers"]
    evaluations = {evaluation_of(recipe, name) for name in recipe.training}
    assert evaluations <= ancestors(graph, "gate@release")


def test_a_repair_waits_for_all_that_it_compares(project: Path) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml").read_text())
    recipe = load(project / "params.yaml")
    graph = flow_graph(recipe)
    for name, node in recipe.repair.items():
        needed = {evaluation_of(recipe, other) for other in (node.init, *node.against)}
        assert needed <= ancestors(graph, f"repair@{name}")
        assert f"evaluate-repair@{name}" in graph


def test_dvc_yaml_names_no_node_and_no_domain_of_a_recipe() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    kinds = {"sft", "rl", "teachers", "off_policy", "distill", "repair", "quantize", "qad", "gate", "solve"}
    assert set(stages) == {
        "curate",
        *kinds,
        *(f"evaluate-{kind}" for kind in kinds - {"teachers", "gate", "solve"}),
    }
    for recipe in map(load, sorted((ROOT / "recipes").glob("*.yaml"))):
        for word in {*recipe.ordered(), *recipe.domains} - kinds:
            assert not re.search(rf"\b{word}\b", yaml.safe_dump(stages))


def test_every_stage_of_a_fresh_project_is_stale(project: Path) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    assert stale_stages(Layout(project)) == sorted(flow_graph(load(project / "params.yaml")))


def test_recipes_without_distillation_have_stages_too(project: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    content |= {"teachers": {}, "distill": {}, "repair": {}, "gate": {}, "rl": {}}
    (project / "params.yaml").write_text(yaml.safe_dump(content))
    assert stale_stages(Layout(project)) == ["curate", "evaluate-sft@sft", "sft@sft"]


def test_a_broken_dvc_file_is_one_line(project: Path) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    (project / "dvc.yaml").unlink()
    (project / "dvc.yaml").write_text("stages: [")
    told = subprocess.run(
        [sys.executable, "-m", "cascade", "run"], cwd=project, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert told.stderr.startswith("Error: DVC: ")
    assert len(told.stderr.splitlines()) == 1


def test_a_server_of_prefect_that_is_not_there_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nano.yaml").read_text())
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    told = subprocess.run(
        [sys.executable, "-m", "cascade", "run"], cwd=project, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert told.stderr == (
        "Error: Prefect at http://127.0.0.1:9/api: Failed to reach API at http://127.0.0.1:9/api/; start its server "
        "(`cascade ui`) or correct PREFECT_API_URL, and run again: it goes on from what was saved last\n"
    )


def test_locks_of_a_process_that_is_about_to_end_are_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "params.yaml").write_text((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    expected = stale_stages(Layout(project))

    def hold(seconds: float) -> subprocess.Popen:
        holder = subprocess.Popen(["sleep", str(seconds)])
        threading.Thread(target=holder.wait, daemon=True).start()
        lock = {"write": {str(project / "models" / "sft"): {"pid": holder.pid, "cmd": "dvc repro"}}, "read": {}}
        (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(lock))
        return holder

    hold(2)
    assert stale_stages(Layout(project)) == expected
    monkeypatch.setattr(run, "BUSY", 0.2)
    holder = hold(60)
    with pytest.raises(CascadeError, match="is busy"):
        stale_stages(Layout(project))
    holder.kill()
