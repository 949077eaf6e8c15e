"""Tiny random models of every kind that the Llama-type forward pass covers, each with what sets it apart."""

import torch
import transformers
from tiny import VOCABULARY
from transformers import PreTrainedModel

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
SLIDING = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
KINDS: dict[str, tuple[str, dict]] = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama, biases and llama3 positions": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    "llama, one head of keys": ("Llama", {"num_key_value_heads": 1, "head_dim": 12}),
    "mistral": ("Mistral", {"sliding_window": 6}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "phi3": ("Phi3", {"partial_rotary_factor": 0.5}),
    "qwen2": ("Qwen2", SLIDING),
    "qwen3": ("Qwen3", {"rope_parameters": YARN}),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "num_experts": 6, "norm_topk_prob": True, "mlp_only_layers": []}),
    "qwen3_moe, a dense layer": ("Qwen3Moe", {**EXPERTS, "num_experts": 4, "mlp_only_layers": [0]}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
}


def make(kind: str, **changes: object) -> PreTrainedModel:
    """Norms and biases are random too, so that leaving one out shows."""
    torch.manual_seed(0)
    name, settings = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**COMMON, **settings, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter_name, value in model.named_parameters():
            if "norm" in parameter_name or parameter_name.endswith("bias"):
                value += 0.3 * torch.randn_like(value)
    return model.eval()
