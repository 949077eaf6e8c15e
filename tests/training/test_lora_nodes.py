"""Nodes that train adapters: their checkpoints are plain, and what was killed ends with the same bytes."""

import shutil

import pytest
from safetensors.torch import load_file

from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.training.node_run import NodeRun
from cascade.training.on_policy import run_on_policy
from cascade.training.sft import run_sft
from cascade.utils.files import hash_directory
from tests.training.miniature import make_hybrid, make_recipe, prompt_rows, write_rows

pytest.importorskip("peft", reason="pip install -e '.[lora]'")

RUN = {"sft": run_sft, "rl": run_on_policy, "mopd": run_on_policy}
LORA = {"rank": 2, "alpha": 8}


@pytest.fixture
def project(project: Layout) -> Layout:
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    return project


@pytest.mark.parametrize("node", RUN)
def test_a_checkpoint_is_plain_and_a_killed_node_ends_with_the_same_bytes(node: str, project: Layout, tmp_path):
    recipe = make_recipe(**{node: {"lora": LORA}})
    copy = Layout(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    parent = project.root / "models" / ("base" if node == "sft" else "sft")
    RUN[node](recipe, node, project)
    before, after = (load_file(d / "model.safetensors") for d in (parent, project.checkpoint(node)))
    assert before.keys() == after.keys()
    assert {name.split(".")[-2] for name in before if not before[name].equal(after[name])} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    steps = [e["values"] for e in Journal(project.journal(node)).entries() if e["kind"] == "metrics"]
    assert max(step.get("train/log_prob_gap", 0) for step in steps) < 1e-5

    real = NodeRun.save
    with pytest.MonkeyPatch.context() as patch:

        def dying(self, policy, step, progress):
            real(self, policy, step, progress)
            if step == 2:
                raise KeyboardInterrupt

        patch.setattr(NodeRun, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            RUN[node](recipe, node, copy)
    RUN[node](recipe, node, copy)
    assert hash_directory(copy.checkpoint(node)) == hash_directory(project.checkpoint(node))


def test_rl_of_adapters_raises_the_reward(project: Layout):
    recipe = make_recipe(rl={"steps": 10, "prompts": 8, "rollouts": 8, "lora": {"rank": 4, "alpha": 16}})
    run_on_policy(recipe, "rl", project)
    steps = [e["values"] for e in Journal(project.journal("rl")).entries() if e["kind"] == "metrics"]
    assert steps[0]["rollout/reward"] < 0.5
    assert steps[-1]["rollout/reward"] > steps[0]["rollout/reward"] + 0.2


def test_a_hybrid_model(project: Layout):
    make_hybrid(project.root / "models" / "base", seed=0)
    run_sft(make_recipe(sft={"lora": LORA}), "sft", project)
    before, after = (
        load_file(d / "model.safetensors") for d in (project.root / "models" / "base", project.checkpoint("sft"))
    )
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert {"q_proj", "in_proj"} <= changed
    assert "out_proj" not in changed
