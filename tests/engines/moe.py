"""A tiny Qwen3 mixture of experts over the miniature's words, as vLLM's CPU build can run it."""

from pathlib import Path

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from cascade.policy.checkpoint import save_checkpoint
from tests.training.miniature import VOCABULARY, make_tokenizer


def make_moe(directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # The smallest that vLLM's CPU attention has.
        intermediate_size=32,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.3,
    )
    save_checkpoint(Qwen3MoeForCausalLM(config), make_tokenizer(), directory)
    return directory
