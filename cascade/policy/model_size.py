"""A model's sizes from its configuration alone: parameters are counted on the meta device, activations estimated."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError

RECOMPUTED_ALONE = ("mamba", "mlp")
"""Layers of NemotronH with activation checkpointing in NeMo Automodel without expert parallelism. With it, and for
other models, all layers have it."""


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters, and bytes of bfloat16 activations per token that are saved for the backward pass."""

    parameters: int
    head: int
    """Parameters of the output matrix, [vocabulary, width]."""
    width: int
    layer: int
    """Parameters of the largest layer, without experts."""
    experts: int
    """Parameters of all experts of one layer, the layer with the most."""
    all_experts: int
    """Parameters of the experts of all layers."""
    copies: int
    """Experts per token; 0 for a dense model."""
    kinds: tuple[str, ...]
    """Kind of each layer: mamba, attention, mlp, moe; `block` is attention and mlp, `moe block` attention and moe."""
    activations: dict[str, float]
    """Bytes per token of one layer of each kind."""
    cache: float
    """Bytes of the KV cache in sampling, per token of a sequence."""
    state: float
    """Bytes of Mamba-2 states in sampling, per sequence."""

    def kept(self, checkpointed: bool, expert_parallel: bool) -> float:
        """Bytes of activations per token of all layers. With activation checkpointing a layer keeps only its input; one
        layer at a time is recomputed."""
        if not checkpointed:
            return sum(self.activations[kind] for kind in self.kinds)
        hybrid = not any("block" in kind for kind in self.kinds)
        again = RECOMPUTED_ALONE if hybrid and not expert_parallel else tuple(self.activations)
        inputs = sum(2 * self.width if kind in again else self.activations[kind] for kind in self.kinds)
        return inputs + max((self.activations[kind] for kind in again if kind in self.activations), default=0)

    def dispatched(self, expert: int) -> float:
        """Additional temporary bytes per token of a layer's experts: tokens of all processes, and each copy's result
        before the sum. `expert`: number of GPUs over which experts are distributed."""
        copies = self.copies * (1 + expert)
        return 2 * self.width * (copies if expert == 1 else copies + self.copies + 2 * expert)


@cache
def shape_of(file: Path) -> Shape:
    """Raises CascadeError for a file that is not the configuration of a causal language model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config: Any = AutoConfig.from_pretrained(file, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers = [(_count(layer), sum(map(_count, _experts(layer)))) for layer in model.base_model.layers]
        head = model.get_output_embeddings().weight.numel()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CascadeError(f"{file}: not the configuration of a causal language model ({reason})") from None
    kinds = _kinds(config)
    attention, mamba = sum(kind in ("attention", "block", "moe block") for kind in kinds), kinds.count("mamba")
    return Shape(
        parameters=_count(model),
        head=head,
        width=config.hidden_size,
        layer=max(whole - experts for whole, experts in layers),
        experts=max(experts for _, experts in layers),
        all_experts=sum(experts for _, experts in layers),
        copies=getattr(config, "num_experts_per_tok", None) or 0,
        kinds=kinds,
        activations={kind: _bytes(config, kind) for kind in dict.fromkeys(kinds)},
        cache=attention * 2 * 2 * config.num_key_value_heads * _head_size(config),
        state=mamba * 4 * _inner(config) * config.ssm_state_size if mamba else 0,
    )


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _experts(layer: Any) -> list[Any]:
    return [module for name, module in layer.named_modules() if name.split(".")[-1] == "experts"]


def _kinds(config: Any) -> tuple[str, ...]:
    if config.model_type == "nemotron_h":
        names = {"linear_attention": "mamba", "full_attention": "attention"}
        return tuple(names.get(kind, kind) for kind in config.layers_block_type)
    kind = "moe block" if getattr(config, "num_experts_per_tok", None) else "block"
    return (kind,) * config.num_hidden_layers


def _bytes(config: Any, kind: str) -> float:
    """Bytes that a layer saves per token: inputs of its matrices and nonlinearities, 2 bytes each; sums in float32."""
    width = config.hidden_size
    if kind == "block":
        return _bytes(config, "attention") + _bytes(config, "mlp")
    if kind == "moe block":
        return _bytes(config, "attention") + _bytes(config, "moe")
    if kind == "mamba":
        inner, groups = _inner(config), 2 * config.n_groups * config.ssm_state_size
        projected = 2 * inner + groups + config.mamba_num_heads
        states = 4 * inner * config.ssm_state_size / config.chunk_size
        return 2 * (2 * width + projected + (inner + groups) + 2 * inner) + states
    if kind == "attention":
        size = _head_size(config)
        return 2 * (2 * width + 2 * config.num_attention_heads * size + 2 * config.num_key_value_heads * size)
    gated = 2 if config.model_type == "nemotron_h" else 3  # up and its square, or up, gate and their product
    if kind == "mlp":
        return 2 * (2 * width + gated * config.intermediate_size)
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    shared = getattr(config, "moe_shared_expert_intermediate_size", None) or 0
    # NemotronH's experts sum their outputs without saving them.
    ends = 1 if config.model_type == "nemotron_h" else 2
    routed = config.num_experts_per_tok * 2 * (ends * width + gated * inner)
    return 2 * 2 * width + routed + 2 * gated * shared + 4 * width + 2 * 4 * config.num_local_experts


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _inner(config: Any) -> int:
    return config.mamba_num_heads * config.mamba_head_dim
