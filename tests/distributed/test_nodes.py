"""Nodes that two processes run together: one journal, one checkpoint, and the same bytes after a kill."""

import json
import shutil
from pathlib import Path

import pytest

from cascade.layout import Layout
from cascade.training.on_policy import run_on_policy
from cascade.utils.files import hash_directory, read_json
from tests.distributed.test_processes import launch
from tests.training.conftest import environment, project
from tests.training.miniature import make_recipe

__all__ = ["environment", "project"]


@pytest.mark.usefixtures("environment")
def test_nodes_of_two_processes(project: Layout, tmp_path: Path) -> None:
    """Against one process: the same prompts and rollouts in the first step. Against themselves: killed and resumed."""
    alone, killed = (Layout(tmp_path / name) for name in ("alone", "killed"))
    for copy in (alone, killed):
        shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("alone", "killed"))
    launch("node.py", f"{project.root}:rl", f"{killed.root}:rl:2", f"{project.root}:sft")
    run_on_policy(make_recipe(), "rl", alone)

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


def _steps(layout: Layout) -> list[dict]:
    entries = map(json.loads, layout.journal("rl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == "metrics"]


def _rollout_metrics(step: dict) -> dict[str, float]:
    return {name: value for name, value in step["values"].items() if name.startswith("rollout/")}
