"""Tiny random models of every kind that the engine must run."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    NemotronHConfig,
    NemotronHForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from cascade.policy.checkpoint import save_checkpoint, set_time_step_limit

VOCABULARY = 300


def nemotron_h(pattern: str = "ME*EM-", **changes: object) -> PreTrainedModel:
    """All four kinds of layer, two groups, and per-head parameters that differ."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "hybrid_override_pattern": pattern,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 2,
        "chunk_size": 8,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 24,
        "routed_scaling_factor": 1.5,
        "initializer_range": 0.3,
    }
    model = NemotronHForCausalLM(NemotronHConfig(**{**settings, **changes}))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("A_log", ".D", "correction_bias", "norm.weight", "conv1d.bias")):
                value += 0.3 * torch.randn_like(value)
            if name.endswith("dt_bias"):
                # From steps far below `time_step_min`, the released models' 0.001 too, to large ones.
                value.copy_(torch.linspace(-9, 0, len(value)))
    set_time_step_limit(model)
    return model.eval()


def qwen3() -> PreTrainedModel:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**_qwen(), tie_word_embeddings=True)).eval()


def qwen3_moe() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**_qwen(), num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    return Qwen3MoeForCausalLM(config).eval()


def olmo2() -> PreTrainedModel:
    """One that only transformers' own forward pass covers."""
    torch.manual_seed(0)
    return Olmo2ForCausalLM(Olmo2Config(**_qwen())).eval()


def _qwen() -> dict:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "initializer_range": 0.3,
    }


MAKERS = {"nemotron_h": nemotron_h, "qwen3": qwen3, "qwen3_moe": qwen3_moe, "olmo2": olmo2}


def tokenizer() -> PreTrainedTokenizerFast:
    letters = {letter: number + 3 for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab={"<pad>": 0, "<|im_start|>": 1, "<|im_end|>": 2, **letters}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<pad>", chat_template=template
    )


def checkpoint(directory: Path, kind: str = "nemotron_h") -> Path:
    save_checkpoint(MAKERS[kind](), tokenizer(), directory)
    return directory


def reference_log_probs(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """[len - 1, V] through transformers alone, one unpadded sequence."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
