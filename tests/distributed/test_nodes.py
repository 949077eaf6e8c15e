"""Nodes that two processes run together: one journal, one checkpoint, and the same bytes after a kill."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cascade.layout import Layout
from cascade.utils.files import hash_directory, read_json
from tests.distributed.launch import launch
from tests.training.conftest import environment, project

__all__ = ["environment", "project"]
pytestmark = pytest.mark.timeout(900)  # Several starts of two processes, on a busy machine.


@pytest.mark.usefixtures("environment")
def test_nodes_of_two_processes(project: Layout, tmp_path: Path) -> None:
    """Against one process: the same prompts and rollouts in the first step. Against themselves: killed and resumed."""
    alone, killed = (Layout(tmp_path / name) for name in ("alone", "killed"))
    for copy in (alone, killed):
        shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("alone", "killed"))
    launch("node.py", f"{project.root}:rl", f"{killed.root}:rl:die=2", f"{project.root}:sft")
    launch("node.py", f"{alone.root}:rl", processes=1)

    for node in ("rl", "sft"):
        manifest = read_json(project.training(node) / "manifest.json")
        assert manifest["checkpoint"] == hash_directory(project.checkpoint(node)) != manifest["inputs"]["parent"]
        assert manifest["inputs"]["processes"] == 2
        assert not project.work(node).exists()
    killed_and_resumed = read_json(killed.training("rl") / "manifest.json")
    assert killed_and_resumed["checkpoint"] == read_json(project.training("rl") / "manifest.json")["checkpoint"]
    steps, one = _steps(project), _steps(alone)
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    assert _rollout_metrics(steps[0]) == _rollout_metrics(one[0])
    assert steps[0]["values"]["train/loss"] == pytest.approx(one[0]["values"]["train/loss"], abs=1e-6)
    assert steps[0]["values"]["train/tokens"] == one[0]["values"]["train/tokens"]


@pytest.mark.usefixtures("environment")
def test_distillation_of_a_split_model_from_two_teachers(project: Layout, tmp_path: Path) -> None:
    """Where the teachers wait, and a kill, change nothing; nor does the sampler's copy of the weights lag behind."""
    host, killed = (Layout(tmp_path / name) for name in ("host", "killed"))
    for copy in (host, killed):
        shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("host", "killed"))
    jobs = [f"{project.root}:mopd", f"{host.root}:mopd:memory=host", f"{killed.root}:mopd:die=2"]
    launch("node.py", *(f"{job}:engine=nemo" for job in jobs))
    made = {read_json(layout.training("mopd") / "manifest.json")["checkpoint"] for layout in (project, host, killed)}
    assert len(made) == 1
    entries = map(json.loads, project.journal("mopd").read_text().splitlines())
    gaps = [entry["values"]["train/log_prob_gap"] for entry in entries if entry["kind"] == "metrics"]
    assert len(gaps) == 4
    assert max(gaps) < 1e-4


@pytest.mark.usefixtures("environment")
def test_adapters_are_trained_by_two_processes_as_by_one(project: Layout, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="pip install -e '.[lora]'")
    alone = Layout(tmp_path / "alone")
    shutil.copytree(project.root, alone.root, ignore=shutil.ignore_patterns("alone"))
    launch("node.py", f"{project.root}:sft:lora=2")
    launch("node.py", f"{alone.root}:sft:lora=2", processes=1)
    both, one, base = (
        load_file(directory / "model.safetensors")
        for directory in (project.checkpoint("sft"), alone.checkpoint("sft"), project.root / "models" / "base")
    )
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, atol=2e-4, rtol=1e-3)
    adapted = [name for name in one if "_proj" in name]
    assert all((one[name] - base[name]).abs().max() > 0.01 for name in adapted)


def _steps(layout: Layout) -> list[dict]:
    entries = map(json.loads, layout.journal("rl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == "metrics"]


def _rollout_metrics(step: dict) -> dict[str, float]:
    return {name: value for name, value in step["values"].items() if name.startswith("rollout/")}
