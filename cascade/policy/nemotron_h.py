"""A fast forward pass of transformers' NemotronH over rows of unequal length, reading the modules' own weights.

The model's code stays as it is; this walks its layers. Tokens lie in blocks: rows of similar length, padded on the
right. Layers that treat tokens one by one run once over the tokens of all blocks; attention, convolution and state
space run block by block. Packed documents are simply rows. Where several rows begin alike (the rollouts of one
prompt), what they share is a row of an earlier block, computed once, and its keys, values and states reach all of
them, gradients included.

Pretraining on rows of equal length: `hidden_states(model, [Block(tokens)]).hidden` is [B·T, D] in row-major order,
under autocast or not, on any device; `token_log_probs` (cascade/policy/logits.py) turns it into a loss.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy import mamba_kernels
from cascade.policy.attention import attention
from cascade.policy.moe import experts, route, tokens_per_expert
from cascade.policy.ssd import chunk_length, ssd


@dataclass(frozen=True)
class MambaMemory:
    """What a block leaves to those that follow it: the last inputs of the convolution [R, K-1, channels], and the
    state [R, G, N, H/G · P]."""

    convolution: Tensor
    state: Tensor


@dataclass(frozen=True)
class AttentionMemory:
    """Keys and values [R, heads, L, head dim], those of parents included."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Past:
    """What an earlier forward pass has read before the rows of a block: as many tokens as `lengths` [R] says, and of
    each layer its memory of those rows, keys and values padded on the right."""

    lengths: Tensor
    memories: list[Any]


@dataclass(frozen=True)
class Block:
    """Rows of tokens [R, L], padded on the right after `lengths` [R]; None: no padding.

    What comes before them: `parent` names the block, earlier in the list, and per row [R] the row there, that holds it;
    `past` is it.
    """

    tokens: Tensor
    lengths: Tensor | None = None
    parent: tuple[int, Tensor] | None = None
    past: Past | None = None


@dataclass
class Forward:
    hidden: Tensor
    """[tokens, D], after the final norm: the blocks in order, each row by row, padding included."""
    expert_counts: list[Tensor] = field(default_factory=list)
    """Per MoE layer [E]: tokens routed to each expert, padding not counted."""
    memories: list[list[Any]] = field(default_factory=list)
    """Per layer, per block: MambaMemory or AttentionMemory where something follows; nothing for other layers."""


def supports(model: PreTrainedModel) -> bool:
    """Whether this forward pass covers the model's configuration; others go through transformers."""
    config = model.config
    return (
        config.model_type == "nemotron_h"
        and config.mlp_hidden_act == "relu2"
        and config.mamba_hidden_act == "silu"
        and not config.attention_dropout
        and not config.hidden_dropout
    )


@dataclass(frozen=True)
class _Span:
    """A block with what its layers need: where it lies among all tokens, and which keys each position may see."""

    block: Block
    start: int
    rows: int
    length: int
    visible: Tensor | None
    """Of positions [R, L], parents included, as keys: which are not padding; None: all."""
    mask: Tensor | None
    """[R, 1, L, keys], None where plain causal order will do."""
    kept: bool
    """Whether later rows, or the caller, need the memory of this block."""

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.start + self.rows * self.length].view(self.rows, self.length, *flat.shape[1:])


def _spans(blocks: list[Block], keep: bool) -> list[_Span]:
    parents = {block.parent[0] for block in blocks if block.parent}
    spans: list[_Span] = []
    start = 0
    for number, block in enumerate(blocks):
        rows, length = block.tokens.shape
        device = block.tokens.device
        visible, mask = None, None
        if block.lengths is not None:
            visible = torch.arange(length, device=device) < block.lengths.unsqueeze(1)
        if (before := _visible_before(block, spans)) is not None:
            own = torch.ones(rows, length, dtype=torch.bool, device=device) if visible is None else visible
            causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
            mask = torch.cat([before.unsqueeze(1).expand(-1, length, -1), causal.expand(rows, -1, -1)], 2).unsqueeze(1)
            visible = torch.cat([before, own], 1)
        spans.append(_Span(block, start, rows, length, visible, mask, keep or number in parents))
        start += rows * length
    return spans


def _visible_before(block: Block, spans: list[_Span]) -> Tensor | None:
    """Of the positions before a block's rows [R, keys]: which are not padding."""
    device = block.tokens.device
    if block.past is not None:
        return torch.arange(int(block.past.lengths.max()), device=device) < block.past.lengths.unsqueeze(1)
    if block.parent is None:
        return None
    above = spans[block.parent[0]]
    if above.visible is None:
        return torch.ones(len(block.tokens), above.length, dtype=torch.bool, device=device)
    return above.visible[block.parent[1]]


def hidden_states(model: PreTrainedModel, blocks: list[Block], keep: bool = False) -> Forward:
    """Hidden states of all tokens. `keep` also returns the memories, from which decoding goes on."""
    spans = _spans(blocks, keep)
    x = model.model.embeddings(torch.cat([block.tokens.flatten() for block in blocks]))
    padding = None
    if any(block.lengths is not None for block in blocks):
        padding = ~torch.cat(
            [
                torch.ones(s.rows * s.length, dtype=torch.bool, device=x.device)
                if s.block.lengths is None
                else (torch.arange(s.length, device=x.device) < s.block.lengths.unsqueeze(1)).flatten()
                for s in spans
            ]
        )
    result = Forward(x)
    for n, layer in enumerate(model.model.layers):
        normed = rms_norm(x, layer.norm)
        memories: list[Any] = []
        if layer.block_type == "linear_attention":
            out = _mamba(layer.mixer, normed, spans, memories, n)
        elif layer.block_type == "full_attention":
            out = _attention(layer.mixer, normed, spans, memories, n)
        elif layer.block_type == "moe":
            out = moe(layer.mixer, normed, padding, result.expert_counts)
        else:
            out = mlp(layer.mixer, normed)
        result.memories.append(memories)
        x = x + out
    result.hidden = rms_norm(x, model.model.norm_f)
    return result


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    weight = _full(norm.weight)
    return F.rms_norm(_full(x), weight.shape, weight, norm.variance_epsilon).to(x.dtype)


def _full(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def gated_norm(x: Tensor, gate: Tensor, norm: Any) -> Tensor:
    """Zamba2's RMS norm over groups of channels, the gate applied first."""
    gated = (_full(x) * F.silu(_full(gate))).unflatten(-1, (-1, norm.group_size))
    return norm.weight * F.rms_norm(gated, (norm.group_size,), None, norm.variance_epsilon).flatten(-2).to(x.dtype)


def moe(mixer: Any, x: Tensor, padding: Tensor | None, counts: list[Tensor]) -> Tensor:
    """Routed experts plus the shared one, x [T, D] → [T, D]; appends the tokens per expert to `counts`."""
    chosen, weights = choose(mixer.gate, x)
    if padding is not None:
        chosen = chosen.masked_fill(padding.unsqueeze(1), mixer.gate.num_experts)
    counts.append(tokens_per_expert(chosen, mixer.gate.num_experts))
    routed = experts(mixer.fc1_latent_proj(x), chosen, weights, mixer.experts.up_proj, mixer.experts.down_proj)
    return mixer.fc2_latent_proj(routed) + mlp(mixer.shared_experts, x)


def mlp(module: Any, x: Tensor) -> Tensor:
    """down(relu²(up x)); a product, because autocast would take square() to float32."""
    active = module.up_proj(x).relu()
    return module.down_proj(active * active)


def choose(gate: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The experts of each token [T, K] and their weights."""
    return route(
        x,
        gate.weight,
        gate.e_score_correction_bias,
        gate.top_k,
        gate.num_group,
        gate.topk_group,
        gate.norm_topk_prob,
        gate.routed_scaling_factor,
    )


def _attention(mixer: Any, x: Tensor, spans: list[_Span], memories: list[AttentionMemory | None], n: int) -> Tensor:
    queries, keys, values = mixer.q_proj(x), mixer.k_proj(x), mixer.v_proj(x)
    out = []
    for span in spans:
        q, k, v = (span.of(t).unflatten(-1, (-1, mixer.head_dim)).transpose(1, 2) for t in (queries, keys, values))
        if (before := _before(span, memories, n)) is not None:
            k, v = torch.cat([before.keys, k], 2), torch.cat([before.values, v], 2)
        memories.append(AttentionMemory(k, v) if span.kept else None)
        y = attention(
            q,
            k.repeat_interleave(mixer.num_key_value_groups, 1),
            v.repeat_interleave(mixer.num_key_value_groups, 1),
            span.mask,
            mixer.scaling,
        )
        out.append(y.transpose(1, 2).reshape(span.rows * span.length, -1))
    return mixer.o_proj(torch.cat(out) if len(out) > 1 else out[0])


def _mamba(mixer: Any, x: Tensor, spans: list[_Span], memories: list[MambaMemory | None], n: int) -> Tensor:
    gate, inputs, dt = mixer.in_proj(x).split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
    dt = time_step(mixer, dt)
    a = -_full(mixer.A_log).exp()
    out = []
    for span in spans:
        initial, context = None, None
        if (before := _before(span, memories, n)) is not None:
            initial, context = before.state, before.convolution
        steps = span.of(dt)
        if span.kept and span.block.lengths is not None:
            real = torch.arange(span.length, device=x.device) < span.block.lengths.unsqueeze(1)
            steps = steps * real.unsqueeze(-1)
        mixed, last = _convolution(mixer, span.of(inputs), span, context)
        y, state = _scan(mixer, mixed, steps, a, initial, span.kept)
        memories.append(None if last is None or state is None else MambaMemory(last, state))
        out.append(y.reshape(span.rows * span.length, -1))
    y = torch.cat(out) if len(out) > 1 else out[0]
    return mixer.out_proj(gated_norm(y.to(x.dtype), gate, mixer.norm))


def _before(span: _Span, memories: list[Any], n: int) -> Any:
    """The memory that the rows of a block go on from in layer n, if any."""
    if span.block.past is not None:
        return span.block.past.memories[n]
    if span.block.parent is None:
        return None
    number, row = span.block.parent
    above = memories[number]
    return type(above)(*(getattr(above, part.name)[row] for part in fields(above)))


def time_step(mixer: Any, dt: Tensor) -> Tensor:
    """Δ = softplus(dt + bias), held to the mixer's limits, in training and in decoding alike."""
    low, high = mixer.time_step_limit
    return F.softplus(_full(dt) + _full(mixer.dt_bias)).clamp(low, None if high == float("inf") else high)


def _convolution(mixer: Any, inputs: Tensor, span: _Span, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Causal depthwise convolution and SiLU, [R, L, channels]. Channels-last 2-D is the fast layout on CPUs."""
    taps = mixer.conv_kernel_size - 1
    fused = mamba_kernels.can_convolve(inputs)
    x = inputs
    if span.kept or not fused:
        x = F.pad(inputs, (0, 0, taps, 0)) if context is None else torch.cat([context, inputs], 1)
    if fused:
        y = mamba_kernels.convolution(inputs, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, context)
    elif x.device.type == "cpu":
        y = F.conv2d(
            x.transpose(1, 2).unsqueeze(2), mixer.conv1d.weight.unsqueeze(2), mixer.conv1d.bias, groups=x.shape[2]
        )
        y = F.silu(y.squeeze(2).transpose(1, 2))
    else:
        # Shifted products: cuDNN plans every new length for a second.
        weight = mixer.conv1d.weight.squeeze(1).to(x.dtype)
        y = sum(x[:, k : k + inputs.shape[1]] * weight[:, k] for k in range(taps + 1))
        y = F.silu(y if mixer.conv1d.bias is None else y + mixer.conv1d.bias.to(x.dtype))
    last = None
    if span.kept:
        if span.block.lengths is None:
            last = x[:, x.shape[1] - taps :]
        else:
            # In x, position i of the row lies at i + taps: its last `taps` inputs start at its length.
            index = span.block.lengths.unsqueeze(1) + torch.arange(taps, device=x.device)
            last = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return y, last


def _scan(
    mixer: Any, mixed: Tensor, dt: Tensor, a: Tensor, initial: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """The state-space part: [R, L, channels] → [R, L, H·P]; its state in float32, whatever autocast says."""
    size = mixer.n_groups * mixer.ssm_state_size
    fused = mamba_kernels.can_scan(mixed)
    with torch.autocast(mixed.device.type, enabled=False):
        x, b, c = (mixed if fused else _full(mixed)).split([mixer.intermediate_size, size, size], -1)
        x = x.unflatten(-1, (mixer.num_heads, mixer.head_dim))
        b, c = (t.unflatten(-1, (mixer.n_groups, mixer.ssm_state_size)) for t in (b, c))
        if fused:
            y, final = mamba_kernels.scan(x, dt, a, b, c, _full(mixer.D), initial, keep)
        else:
            longest = 32 if mixed.device.type == "cpu" else 128
            chunk = chunk_length(mixed.shape[1], longest)
            y, final = ssd(x, dt, a, b, c, _full(mixer.D), chunk, initial, keep)
    return y.flatten(2), final
