"""A node of a recipe whose rollouts vLLM samples, end to end."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-engines` has it")

from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.training.on_policy import run_on_policy
from cascade.utils.files import hash_directory, read_json
from tests.engines.moe import make_moe
from tests.engines.test_vllm import GAP
from tests.training.conftest import environment, project  # noqa: F401 (fixtures)
from tests.training.miniature import OPTIMIZER, choose_teachers, make_recipe, prompt_rows, write_rows

ROLLOUT = {"engine": "vllm", "max_new_tokens": 8, "thinking": False, "max_log_prob_gap": GAP, "memory": 0.15}


@pytest.fixture
def moe_project(project: Layout) -> Layout:  # noqa: F811
    for seed, node in enumerate(("sft", "rl", "other"), 1):
        make_moe(project.checkpoint(node), seed)
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    choose_teachers(project, one="rl", two="other")
    return project


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("node", "steps"), [("rl", 3), ("mopd", 2)])
def test_a_node_trains_on_what_vllm_samples(moe_project: Layout, node: str, steps: int):
    optimizer = {**OPTIMIZER, "learning_rate": 0.01}
    sizes = {"steps": steps, "prompts": 8, "rollouts": 8, "optimizer": optimizer, "rollout": ROLLOUT}
    run_on_policy(make_recipe(**{node: sizes}), node, moe_project)
    entries = [e["values"] for e in Journal(moe_project.journal(node)).entries() if e["kind"] == "metrics"]
    assert len(entries) == steps
    for values in entries:
        assert values["train/log_prob_gap_max"] < GAP
        assert values["train/mismatch_share"] == 0
        assert values["train/gradient_norm"] > 0
    if node == "rl":
        assert entries[-1]["rollout/reward"] > entries[0]["rollout/reward"] + 0.5
    manifest = read_json(moe_project.training(node) / "manifest.json")
    assert manifest["checkpoint"] == hash_directory(moe_project.checkpoint(node))
