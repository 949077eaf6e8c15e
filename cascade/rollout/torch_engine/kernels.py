"""What a decoding step of NemotronH does besides matrix products, on buffers that stay where they are.

B rows. On CUDA each function is one kernel (`triton_kernels.py`), so that a step costs little more than its memory
traffic; elsewhere it is what is written here, which is also what the kernels are tested against.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.policy.nemotron_h import choose


def add_norm(x: Tensor, update: Tensor | None, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """x += update (if any), then its RMS norm in `dtype`. x [B, D] float32, update [B, D], weight [D]."""
    if x.is_cuda:
        return _triton().add_norm(x, update, weight, epsilon, dtype)
    if update is not None:
        x += update
    return F.rms_norm(x, weight.shape, weight, epsilon).to(dtype)


def gated_norm(y: Tensor, gate: Tensor, weight: Tensor, group: int, epsilon: float, dtype: torch.dtype) -> Tensor:
    """RMS norm of y · silu(gate) over groups of `group` channels; y [B, C] float32, gate [B, C], weight [C]."""
    if y.is_cuda:
        return _triton().gated_norm(y, gate, weight, group, epsilon, dtype)
    gated = (y * F.silu(gate.float())).unflatten(-1, (-1, group))
    return (weight * F.rms_norm(gated, (group,), None, epsilon).flatten(-2)).to(dtype)


def convolve(window: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The causal convolution's next output, after SiLU [B, C]; the window moves on by `inputs` [B, C].

    window [B, K - 1, C], the last inputs, oldest first; weight [K, C]; bias [C].
    """
    if window.is_cuda:
        return _triton().convolve(window, inputs, weight, bias)
    seen = torch.cat([window, inputs.unsqueeze(1)], 1)
    window.copy_(seen[:, 1:])
    mixed = (seen * weight).sum(1)
    return F.silu(mixed if bias is None else mixed + bias).to(inputs.dtype)


def advance_state(
    state: Tensor,
    mixed: Tensor,
    dt: Tensor,
    dt_bias: Tensor,
    a: Tensor,
    d: Tensor,
    groups: int,
    limits: tuple[float, float],
) -> Tensor:
    """One position of the state space: y [B, H · P] in float32; `state` [B, H, N, P] moves on.

    s ← exp(Δ a) s + Δ b xᵀ,  y = cᵀ s + d x,  Δ = softplus(dt + dt_bias) within `limits`; mixed [B, H·P + 2·G·N]
    holds x, b and c; dt [B, H]; dt_bias, a and d [H], float32.
    """
    if state.is_cuda:
        return _triton().advance_state(state, mixed, dt, dt_bias, a, d, groups, limits)
    rows, heads, size, channels = state.shape
    x, b, c = mixed.float().split([heads * channels, groups * size, groups * size], -1)
    x = x.view(rows, heads, 1, channels)
    b, c = (t.view(rows, groups, size, 1).repeat_interleave(heads // groups, 1) for t in (b, c))
    step = F.softplus(dt.float() + dt_bias).clamp(*limits)[..., None, None]
    state.mul_((step * a[:, None, None]).exp()).add_(b * (x * step))
    return ((c * state).sum(2) + d[:, None] * x.squeeze(2)).flatten(1)


def attend(
    queries: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, scale: float
) -> Tensor:
    """Attention of one new position to those before it and to itself [B, H, d]; its key and value join the cache.

    queries [B, H, d]; key and value [B, K, d], of H/K queries each; keys and values [B, K, capacity, d], of which
    `lengths` [B] positions hold something, fewer than the capacity.
    """
    if keys.is_cuda:
        return _triton().attend(queries, key, value, keys, values, lengths, scale)
    rows = torch.arange(len(keys), device=keys.device)
    keys[rows, :, lengths], values[rows, :, lengths] = key, value
    hidden = torch.arange(keys.shape[2], device=keys.device) > lengths.unsqueeze(1)
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    scores = (grouped @ keys.transpose(-1, -2)).float() * scale
    weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
    # What lies beyond the length may be anything, NaN too.
    seen = values.masked_fill(hidden[:, None, :, None], 0)
    return (weights.to(values.dtype) @ seen).flatten(1, 2)


def squared_relu(hidden: Tensor, weights: Tensor | None) -> Tensor:
    """relu(hidden)², the E equal parts of each row times its `weights` [B, E], if any. hidden [B, E · I]."""
    if hidden.is_cuda:
        return _triton().squared_relu(hidden, weights)
    active = hidden.float().relu().square()
    if weights is not None:
        active = (active.unflatten(-1, (weights.shape[1], -1)) * weights.unsqueeze(-1)).flatten(-2)
    return active.to(hidden.dtype)


def route(x: Tensor, gate: Any) -> Tensor:
    """The weight of every expert [B, E] by NemotronH's router, 0 where it is not chosen. x [B, D] float32."""
    if x.is_cuda and gate.num_group == gate.topk_group:
        return _triton().route(x, gate)
    chosen, weights = choose(gate, x)
    numbers = torch.arange(gate.num_experts, device=x.device)
    return ((chosen.unsqueeze(-1) == numbers) * weights.unsqueeze(-1)).sum(1)


def _triton():  # type: ignore[no-untyped-def]
    from cascade.rollout.torch_engine import triton_kernels  # Triton comes with PyTorch's CUDA builds only.

    return triton_kernels
