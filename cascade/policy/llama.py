"""A fast forward pass for transformers' Llama-type decoders over rows of unequal length, with the modules' own weights.

Grouped-query attention with rotary positions, sliding windows, norms on queries and keys, gated units, experts chosen
by a softmax: Llama, Mistral, Mixtral, Phi-3, Qwen 2, Qwen 3, Qwen3-MoE, SmolLM 3. Token-wise layers run over the tokens
without padding; attention runs over the blocks of `blocks.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cascade.policy.blocks import Block, Forward, Span, attend, checkpointed, full, rms_norm, spans_of
from cascade.policy.elementwise import rotate, swiglu
from cascade.policy.moe import experts, softmax_route, tokens_per_expert

MODELS = ("llama", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3")
ROTARY = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose frequencies do not depend on the length of the batch's longest row."""


@dataclass(frozen=True)
class Attention:
    """An attention layer, independent of the model's names for its parts."""

    norm: Any
    projections: tuple[nn.Linear, ...]
    """Three projections for queries, keys and values, or one for all three."""
    out: nn.Linear
    head_norms: tuple[Any, Any] | None
    """Norms of queries and keys, per head."""
    heads: int
    held: int
    """Number of key heads."""
    size: int
    scale: float
    rotary: bool
    window: int | None

    def split(self, parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the projections → queries [n, H, d], keys and values [n, K, d], normalised, not yet rotated."""
        joint = parts[0] if len(parts) == 1 else None
        if joint is not None:
            sizes = [heads * self.size for heads in (self.heads, self.held, self.held)]
            parts = list(joint.split(sizes, -1))
        q, k, v = (part.unflatten(-1, (-1, self.size)) for part in parts)
        if self.head_norms is not None:
            q, k = rms_norm(q, self.head_norms[0]), rms_norm(k, self.head_norms[1])
        return q, k, v


@dataclass(frozen=True)
class MLP:
    norm: Any
    projections: tuple[nn.Linear, ...]
    """Gate and up projections, or one for both."""
    out: nn.Linear


@dataclass(frozen=True)
class Experts:
    norm: Any
    router: nn.Parameter
    """[E, D]"""
    top_k: int
    normalise: bool
    projections: nn.Parameter
    """[E, 2 I, D], the gate's first."""
    out: nn.Parameter
    """[E, D, I]"""

    @property
    def count(self) -> int:
        return len(self.router)


def supports(model: PreTrainedModel) -> bool:
    """Whether this forward pass supports the model's configuration; other models use transformers' forward pass."""
    config = model.config
    if config.model_type not in MODELS or config.hidden_act != "silu":
        return False
    if config.rope_parameters.get("rope_type", "default") not in ROTARY:
        return False
    linear = [m for part in parts_of(model) if not isinstance(part, Experts) for m in (*part.projections, part.out)]
    return all(type(module) is nn.Linear for module in linear)


def parts_of(model: PreTrainedModel) -> list[Attention | MLP | Experts]:
    """Attention, then MLP or experts, of each layer."""
    found: list[Attention | MLP | Experts] = []
    layers: list[Any] = list(model.model.layers)  # type: ignore[arg-type]
    for layer in layers:
        found.append(_attention_of(model.config, layer))
        found.append(_mlp_of(layer))
    return found


def _attention_of(config: Any, layer: Any) -> Attention:
    mixer = layer.self_attn
    norms = (mixer.q_norm, mixer.k_norm) if hasattr(mixer, "q_norm") else None
    window = mixer.sliding_window if hasattr(mixer, "sliding_window") else getattr(config, "sliding_window", None)
    joint = hasattr(mixer, "qkv_proj")
    return Attention(
        norm=layer.input_layernorm,
        projections=(mixer.qkv_proj,) if joint else (mixer.q_proj, mixer.k_proj, mixer.v_proj),
        out=mixer.o_proj,
        head_norms=norms,
        heads=config.num_attention_heads,
        held=config.num_key_value_heads,
        size=mixer.head_dim,
        scale=mixer.scaling,
        rotary=bool(getattr(mixer, "use_rope", True)),
        window=window,
    )


def _mlp_of(layer: Any) -> MLP | Experts:
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    if hasattr(mlp, "experts"):
        gate, inner = mlp.gate, mlp.experts
        normalise = getattr(gate, "norm_topk_prob", True)
        return Experts(norm, gate.weight, gate.top_k, normalise, inner.gate_up_proj, inner.down_proj)
    joint = hasattr(mlp, "gate_up_proj")
    return MLP(norm, (mlp.gate_up_proj,) if joint else (mlp.gate_proj, mlp.up_proj), mlp.down_proj)


def rotations(model: PreTrainedModel, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position [n] and pair of channels: float32 [n, r], scaled as the model scales them."""
    rotary: Any = model.model.rotary_emb
    width = torch.promote_types(model.dtype, torch.float32)
    cos, sin = rotary(torch.zeros(1, dtype=width, device=positions.device), positions.unsqueeze(0))
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def hidden_states(model: PreTrainedModel, blocks: list[Block], keep: bool = False, recompute: bool = False) -> Forward:
    """Hidden states of all tokens. `keep`: also return the memories, from which decoding continues, one entry for each
    attention and each MLP, the latter empty. `recompute`: activation checkpointing, only the input of each layer is
    kept."""
    spans = spans_of(blocks, keep, packed=True)
    x = model.get_input_embeddings()(_flat(spans, lambda span: span.block.tokens))
    cos, sin = rotations(model, _flat(spans, lambda span: span.positions.expand(span.rows, -1)))
    result = Forward(x)
    parts = parts_of(model)
    for n in range(0, len(parts), 2):

        def layer(x: Tensor, n: int = n) -> tuple[Tensor, list[Any], Tensor | None]:
            attention, mlp = parts[n : n + 2]
            assert isinstance(attention, Attention)
            memories: list[Any] = []
            x = x + _attention(attention, _normed(x, attention.norm), spans, memories, n, cos, sin)
            if isinstance(mlp, Experts):
                out, count = _experts(mlp, rms_norm(x, mlp.norm))
                return x + out, memories, count
            assert isinstance(mlp, MLP)
            return x + _mlp(mlp, _normed(x, mlp.norm)), memories, None

        x, memories, count = checkpointed(layer, x) if recompute and not keep else layer(x)
        result.memories += [memories if keep else [], []]
        if count is not None:
            result.expert_counts.append(count)
    x = rms_norm(x, model.model.norm)
    # The caller counts padding: positions are [blocks, rows, L].
    result.hidden = torch.cat([span.of(x).flatten(0, 1) for span in spans])
    return result


def _flat(spans: list[Span], of: Callable[[Span], Tensor]) -> Tensor:
    """[tokens] from one tensor [R, L] per block, without padding."""
    return torch.cat([span.back(of(span)) for span in spans])


def _normed(x: Tensor, norm: Any) -> Tensor:
    """Convert once to the dtype of the matrix products that read it."""
    kind = x.device.type
    normed = rms_norm(x, norm)
    return normed.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else normed


def _attention(
    part: Attention, x: Tensor, spans: list[Span], memories: list[Any], n: int, cos: Tensor, sin: Tensor
) -> Tensor:
    q, k, v = part.split([projection(x) for projection in part.projections])
    if part.rotary:
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    return part.out(attend(q, k, v, part.scale, spans, memories, n, part.window))


def _mlp(part: MLP, x: Tensor) -> Tensor:
    gate, up = gate_and_up([projection(x) for projection in part.projections])
    return part.out(swiglu(gate, up))


def gate_and_up(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Gate and up, from one matrix product for both or two."""
    gate, up = parts[0].chunk(2, -1) if len(parts) == 1 else parts
    return gate, up


def _experts(part: Experts, x: Tensor) -> tuple[Tensor, Tensor]:
    """x [T, D] → [T, D], and the tokens per expert [E]. The router reads x before rounding."""
    chosen, weights = choose(part, x)
    count = tokens_per_expert(chosen, part.count)
    return experts(x, chosen, weights, part.projections, part.out, gated=True), count


def choose(part: Experts, x: Tensor) -> tuple[Tensor, Tensor]:
    """The experts of each token [T, K] and their weights."""
    return softmax_route(full(x), part.router, part.top_k, part.normalise)
