"""A base model in miniature, trained once for all tests of this folder."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from cascade.pretraining.pretrain import pretrain
from cascade.pretraining.tokenizer import train_tokenizer

RECIPE = {
    "name": "tiny-base",
    "seed": 3,
    "vocabulary": 400,
    "max_length": 256,
    "tokenizer_rows": 20,
    "model": {
        "hybrid_override_pattern": "ME*",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "mamba_num_heads": 2,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16,
        "initializer_range": 0.1,
    },
    "mixture": {"math": {1: 60, 2: 20}, "text": {1: 20}},
    "hasty": 0.3,
    "direct": 0.2,
    "training": {
        "batch_documents": 6,
        "steps": 110,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "min_learning_rate": 0.001,
        "betas": [0.9, 0.95],
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
        "prompt_weight": 0.2,
        "router_bias_rate": 0.01,
    },
}


@dataclass(frozen=True)
class Made:
    recipe: Path
    checkpoint: Path
    said: list[str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("pretraining")
    recipe = root / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    said: list[str] = []
    pretrain(recipe, root / "base", device="cpu", processes=1, say=said.append)
    return Made(recipe, root / "base", said)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["What is the sum of 12 and 30? The answer is 42."] * 5, 320, 256)
