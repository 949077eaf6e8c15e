"""A fast forward pass for transformers' NemotronH over rows of unequal length, with the modules' own weights.

The model's code is unchanged; this runs its layers over the blocks of `blocks.py`: convolution and state space run
block by block, like attention.

Pretraining on rows of equal length: `hidden_states(model, [Block(tokens)]).hidden` is [B·T, D] in row-major order,
under autocast or not, on any device; `token_log_probs` (cascade/policy/logits.py) turns it into a loss.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy import mamba_kernels
from cascade.policy.blocks import Block, Forward, Span, attend, before, checkpointed, full, rms_norm, spans_of
from cascade.policy.moe import experts, route, tokens_per_expert
from cascade.policy.ssd import chunk_length, ssd


@dataclass(frozen=True)
class MambaMemory:
    """Memory of a block for rows that continue it: the last inputs of the convolution [R, K-1, channels], and the state
    [R, G, N, H/G · P]."""

    convolution: Tensor
    state: Tensor


def supports(model: PreTrainedModel) -> bool:
    """Whether this forward pass supports the model's configuration; other models use transformers' forward pass."""
    config = model.config
    return (
        config.model_type == "nemotron_h"
        and config.mlp_hidden_act == "relu2"
        and config.mamba_hidden_act == "silu"
        and not config.attention_dropout
        and not config.hidden_dropout
    )


def hidden_states(model: PreTrainedModel, blocks: list[Block], keep: bool = False, recompute: bool = False) -> Forward:
    """Hidden states of all tokens. `keep`: also return the memories, from which decoding continues. `recompute`:
    activation checkpointing, only the input of each layer is kept."""
    spans = spans_of(blocks, keep)
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

        def run(x: Tensor, n: int = n, layer: Any = layer) -> tuple[Tensor, list[Any], list[Tensor]]:
            normed = rms_norm(x, layer.norm)
            memories: list[Any] = []
            counts: list[Tensor] = []
            if layer.block_type == "linear_attention":
                out = _mamba(layer.mixer, normed, spans, memories, n)
            elif layer.block_type == "full_attention":
                out = _attention(layer.mixer, normed, spans, memories, n)
            elif layer.block_type == "moe":
                out = moe(layer.mixer, normed, padding, counts)
            else:
                out = mlp(layer.mixer, normed)
            return x + out, memories, counts

        x, memories, counts = checkpointed(run, x) if recompute and not keep else run(x)
        result.memories.append(memories)
        result.expert_counts += counts
    result.hidden = rms_norm(x, model.model.norm_f)
    return result


def gated_norm(x: Tensor, gate: Tensor, norm: Any) -> Tensor:
    """Zamba2's RMS norm over groups of channels, the gate applied first."""
    gated = (full(x) * F.silu(full(gate))).unflatten(-1, (-1, norm.group_size))
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
    """down(relu²(up x)); the square is a product, because autocast would run square() in float32."""
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


def _attention(mixer: Any, x: Tensor, spans: list[Span], memories: list[Any], n: int) -> Tensor:
    q, k, v = (p(x).unflatten(-1, (-1, mixer.head_dim)) for p in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
    return mixer.o_proj(attend(q, k, v, mixer.scaling, spans, memories, n))


def _mamba(mixer: Any, x: Tensor, spans: list[Span], memories: list[MambaMemory | None], n: int) -> Tensor:
    gate, inputs, dt = mixer.in_proj(x).split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
    dt = time_step(mixer, dt)
    a = -full(mixer.A_log).exp()
    out = []
    for span in spans:
        initial, context = None, None
        if (past := before(span, memories, n)) is not None:
            initial, context = past.state, past.convolution
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


def time_step(mixer: Any, dt: Tensor) -> Tensor:
    """Δ = softplus(dt + bias), clamped to the mixer's limits, in training and decoding."""
    low, high = mixer.time_step_limit
    return F.softplus(full(dt) + full(mixer.dt_bias)).clamp(low, None if high == float("inf") else high)


def _convolution(mixer: Any, inputs: Tensor, span: Span, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Causal depthwise convolution and SiLU, [R, L, channels]. A channels-last 2-D convolution is fastest on CPUs."""
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
        # A sum of shifted products: cuDNN would take a second to plan every new length.
        weight = mixer.conv1d.weight.squeeze(1).to(x.dtype)
        y = sum(x[:, k : k + inputs.shape[1]] * weight[:, k] for k in range(taps + 1))
        y = F.silu(y if mixer.conv1d.bias is None else y + mixer.conv1d.bias.to(x.dtype))
    last = None
    if span.kept:
        if span.block.lengths is None:
            last = x[:, x.shape[1] - taps :]
        else:
            # In x, position i of the row is at i + taps: its last `taps` inputs start at its length.
            index = span.block.lengths.unsqueeze(1) + torch.arange(taps, device=x.device)
            last = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return y, last


def _scan(
    mixer: Any, mixed: Tensor, dt: Tensor, a: Tensor, initial: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """The state-space part: [R, L, channels] → [R, L, H·P]; the state is float32, also under autocast."""
    size = mixer.n_groups * mixer.ssm_state_size
    fused = mamba_kernels.can_scan(mixed)
    with torch.autocast(mixed.device.type, enabled=False):
        x, b, c = (mixed if fused else full(mixed)).split([mixer.intermediate_size, size, size], -1)
        x = x.unflatten(-1, (mixer.num_heads, mixer.head_dim))
        b, c = (t.unflatten(-1, (mixer.n_groups, mixer.ssm_state_size)) for t in (b, c))
        if fused:
            y, final = mamba_kernels.scan(x, dt, a, b, c, full(mixer.D), initial, keep)
        else:
            longest = 32 if mixed.device.type == "cpu" else 128
            chunk = chunk_length(mixed.shape[1], longest)
            y, final = ssd(x, dt, a, b, c, full(mixer.D), chunk, initial, keep)
    return y.flatten(2), final
