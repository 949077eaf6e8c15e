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
    """Parts of each layer, joined by +: mamba, attention, delta (gated delta rule), conv, mlp, moe."""
    activations: dict[str, float]
    """Bytes per token of one layer of each kind."""
    cache: float
    """Bytes of the KV cache in sampling, per token of a sequence."""
    state: float
    """Bytes of recurrent states in sampling, per sequence."""
    own_pass: bool
    """Whether the engine has a forward pass of its own for the model, and samples from a copy in bfloat16."""

    fused_mamba: float
    """`activations` of a Mamba layer in one kernel, which recomputes its convolution and its states: NeMo's layers."""

    def kept(self, checkpointed: bool, expert_parallel: bool, nemo: bool = False) -> float:
        """Bytes of activations per token of all layers. With activation checkpointing a layer keeps only its input; one
        layer at a time is recomputed."""
        saved = {**self.activations, "mamba": self.fused_mamba} if nemo else self.activations
        if not checkpointed:
            return sum(saved[kind] for kind in self.kinds)
        hybrid = not any("+" in kind for kind in self.kinds)
        again = RECOMPUTED_ALONE if hybrid and not expert_parallel else tuple(saved)
        inputs = sum(2 * self.width if kind in again else saved[kind] for kind in self.kinds)
        return inputs + max((saved[kind] for kind in again if kind in self.kinds), default=0)

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

    from cascade.policy import forward

    try:
        config: Any = AutoConfig.from_pretrained(file, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers = [(_count(layer), sum(map(_count, _experts(layer)))) for layer in model.base_model.layers]
        head = model.get_output_embeddings().weight.numel()
        kinds = tuple(_kind(config, n, bool(_experts(layer))) for n, layer in enumerate(model.base_model.layers))
        activations = {kind: sum(_bytes(config, part) for part in kind.split("+")) for kind in dict.fromkeys(kinds)}
        cache, state = (sum(of(config, kind) for kind in kinds) for of in (_cache, _state))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CascadeError(f"{file}: not the configuration of a causal language model ({reason})") from None
    return Shape(
        parameters=_count(model),
        head=head,
        width=config.hidden_size,
        layer=max(whole - experts for whole, experts in layers),
        experts=max(experts for _, experts in layers),
        all_experts=sum(experts for _, experts in layers),
        copies=getattr(config, "num_experts_per_tok", None) or 0,
        kinds=kinds,
        activations=activations,
        cache=cache,
        state=state,
        fused_mamba=_bytes(config, FUSED) if "mamba" in kinds else 0,
        own_pass=forward.supports(model),
    )


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _experts(layer: Any) -> list[Any]:
    return [module for name, module in layer.named_modules() if name.split(".")[-1] == "experts"]


FUSED = "fused mamba"
_MIXERS = {"full_attention": "attention", "sliding_attention": "attention", "hybrid": "attention+mamba"}


def _kind(config: Any, n: int, experts: bool) -> str:
    """The parts of layer n."""
    kinds = getattr(config, "layers_block_type", None) or getattr(config, "layer_types", None)
    kind = kinds[n] if kinds else "attention"
    mixer = ("mamba" if mamba_sizes(config) else "delta") if kind == "linear_attention" else _MIXERS.get(kind, kind)
    return mixer if config.model_type == "nemotron_h" else f"{mixer}+{'moe' if experts else 'mlp'}"


def _bytes(config: Any, part: str) -> float:
    """Bytes that a part saves per token: inputs of its matrices and nonlinearities, 2 bytes each; sums in float32."""
    width = config.hidden_size
    if part in ("mamba", FUSED):
        heads, size, groups, state, chunk = mamba_sizes(config)  # type: ignore[misc]
        inner, channels = heads * size, 2 * groups * state
        projected = 2 * inner + channels + heads
        if part == FUSED:
            return 2 * (2 * width + projected + inner)
        return 2 * (2 * width + projected + (inner + channels) + 2 * inner) + 4 * inner * state / chunk
    if part == "delta":
        keys, values, state = _delta(config)
        projected = 2 * keys + 2 * values + 2 * config.linear_num_value_heads
        return 2 * (2 * width + projected + (2 * keys + values) + 2 * values) + state / DELTA_CHUNK
    if part == "conv":
        return 2 * (2 * width + 3 * width + 2 * width)
    if part == "attention":
        queries, keys, values = _attention(config)
        return 2 * (2 * width + 2 * queries + keys + values)
    gated = 2 if config.model_type == "nemotron_h" else 3  # up and its square, or up, gate and their product
    if part == "mlp":
        return 2 * (2 * width + gated * config.intermediate_size)
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    names = ("moe_shared_expert_intermediate_size", "shared_expert_intermediate_size")
    shared = next((size for name in names if (size := getattr(config, name, None))), None)
    shared = (getattr(config, "n_shared_experts", None) or 0) * inner if shared is None else shared
    experts = next(n for name in _EXPERTS if (n := getattr(config, name, None)))
    # NemotronH's experts sum their outputs without saving them.
    ends = 1 if config.model_type == "nemotron_h" else 2
    routed = config.num_experts_per_tok * 2 * (ends * width + gated * inner)
    return 2 * 2 * width + routed + 2 * gated * shared + 4 * width + 2 * 4 * experts


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
DELTA_CHUNK = 64
"""Tokens between the states that the gated delta rule keeps."""


def _cache(config: Any, kind: str) -> float:
    if "attention" not in kind:
        return 0
    if latent := getattr(config, "kv_lora_rank", None):
        return 2 * (latent + config.qk_rope_head_dim)
    return 2 * sum(_attention(config)[1:])


def _state(config: Any, kind: str) -> float:
    if "mamba" in kind:
        heads, size, _, state, _ = mamba_sizes(config)  # type: ignore[misc]
        return 4 * heads * size * state
    return _delta(config)[2] if "delta" in kind else 0


def _attention(config: Any) -> tuple[int, int, int]:
    """Channels of queries, keys and values."""
    heads = config.num_attention_heads
    if latent := getattr(config, "qk_nope_head_dim", None):  # Every head has keys of its own.
        size = latent + config.qk_rope_head_dim
        return heads * size, heads * size, heads * config.v_head_dim
    size = _head_size(config)
    return heads * size, config.num_key_value_heads * size, config.num_key_value_heads * size


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def mamba_sizes(config: Any) -> tuple[int, int, int, int, int] | None:
    """Heads, their size, groups, states, tokens of a chunk; None without Mamba-2 layers."""
    for names in (
        ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "chunk_size"),
        ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_chunk_size"),
    ):
        if hasattr(config, names[0]):
            heads, size, groups, state, chunk = (getattr(config, name) for name in names)
            return heads, size, groups, state, chunk
    return None


def _delta(config: Any) -> tuple[int, int, float]:
    """Channels of keys and of values, and bytes of the state."""
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = config.linear_num_value_heads * config.linear_value_head_dim
    return keys, values, 4.0 * values * config.linear_key_head_dim
