"""Twenty-three kinds of causal language model, tiny, with random weights: by name, what their configurations need."""

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
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "head_dim": 4,
}
GROUPS = {"n_group": 1, "topk_group": 1, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}
SETTINGS: dict[str, dict] = {
    "Llama": {"tie_word_embeddings": True},
    "Mistral": {"sliding_window": 16},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": {},
    "Qwen3": {},
    "Qwen3Moe": EXPERTS,
    "Qwen3Next": {
        **EXPERTS,
        "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "Olmo2": {},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Phi3": {},
    "SmolLM3": {"no_rope_layers": [1, 0]},
    "Gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 16},
    "Gemma3": {"query_pre_attn_scalar": 8, "sliding_window": 16},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "DeepseekV3": {**LATENT, **GROUPS, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Glm4Moe": {**GROUPS, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_auto_adjust_ff_dim": False},
    "FalconH1": {**MAMBA, "mamba_d_ssm": 64},
    "Bamba": {**MAMBA, "mamba_expand": 2, "attn_layer_indices": [1]},
    "Granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "Cohere2": {"logit_scale": 0.25, "sliding_window": 16},
    "Starcoder2": {},
    "NemotronH": {
        "hybrid_override_pattern": "ME*E",
        "num_hidden_layers": 4,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 2,
        "chunk_size": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 24,
    },
}
CLASSES = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM")}


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config, model = CLASSES.get(name, (f"{name}Config", f"{name}ForCausalLM"))
    return getattr(transformers, model)(getattr(transformers, config)(**{**COMMON, **SETTINGS[name]})).eval()
