"""RL and distillation on a NemotronH mixture of experts that vLLM samples from, beside the trainer on one GPU."""

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed here")

from cascade.layout import Layout
from cascade.policy.checkpoint import save_checkpoint
from cascade.tracking import Journal
from cascade.training.on_policy import run_on_policy
from tests.policy import tiny
from tests.training.conftest import environment, project  # noqa: F401 (fixtures)
from tests.training.miniature import (
    OPTIMIZER,
    VOCABULARY,
    choose_teachers,
    make_recipe,
    make_tokenizer,
    prompt_rows,
    write_rows,
)

WIDE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 256,
    "head_dim": 64,
    "mamba_num_heads": 8,
    "mamba_head_dim": 64,
    "ssm_state_size": 64,
    "n_groups": 1,
    "chunk_size": 64,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 256,
    "moe_shared_expert_intermediate_size": 256,
    "max_position_embeddings": 512,
    "initializer_range": 0.06,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("node", "steps"), [("rl", 8), ("mopd", 3)])
def test_a_node_trains_on_what_vllm_samples(project: Layout, node: str, steps: int):  # noqa: F811
    for seed, name in enumerate(("sft", "rl", "other")):
        model = tiny.nemotron_h("ME*E", **WIDE)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
        save_checkpoint(model, make_tokenizer(), project.checkpoint(name))
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    choose_teachers(project, one="rl", two="other")
    rollout = {"engine": "vllm", "max_new_tokens": 16, "thinking": False, "memory": 0.2, "max_log_prob_gap": 0.1}
    sizes = {"steps": steps, "prompts": 16, "rollouts": 8, "rollout": rollout}
    if node == "rl":
        sizes["min_teaching"] = 0  # After a few steps, nearly all prompts are solved.
    optimizer = {**OPTIMIZER, "learning_rate": 0.001, "micro_batch_tokens": 4096}
    run_on_policy(make_recipe(**{node: {**sizes, "optimizer": optimizer}}), node, project)
    entries = [e["values"] for e in Journal(project.journal(node)).entries() if e["kind"] == "metrics"]
    assert len(entries) == steps
    trained = [values for values in entries if not values["rollout/skipped_step"]]
    assert trained
    assert max(values["train/mismatch_share"] for values in trained) < 0.01
    if node == "rl":
        assert entries[-1]["rollout/reward"] > entries[0]["rollout/reward"]
