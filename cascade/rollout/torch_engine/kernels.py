"""The operations of a decoding step other than matrix products, on buffers with fixed addresses.

B is the number of rows. On CUDA each function is one kernel (`triton_kernels.py`), so that a step takes little more
than its memory traffic; other devices use the functions below, which are also the reference for testing the kernels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.policy import moe
from cascade.policy.elementwise import turned
from cascade.policy.nemotron_h import choose


def add_norm(x: Tensor, update: Tensor | None, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """x += update (if given), then the RMS norm of x in `dtype`. x [B, D] float32, update [B, D], weight [D]."""
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
    """The causal convolution's next output, after SiLU [B, C]; `inputs` [B, C] are appended to the window in place.

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
    """One step of the state-space recurrence: y [B, H · P] in float32; `state` [B, H, N, P] is updated in place.

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
    queries: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    norms: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Causal attention of one new position [B, H, d]; its key and value are appended to the cache.

    queries [B, H, d]; key and value [B, K, d], each for H/K queries; keys and values [B, K, capacity, d], of which
    `lengths` [B] positions are filled, fewer than the capacity. `window`: sliding window in positions, the new one
    included. Before attention, queries and key are normalised per head, with weights [d] and an epsilon, and rotated,
    with cosine and sine of every position [capacity, r].
    """
    if keys.is_cuda:
        return _triton().attend(queries, key, value, keys, values, lengths, scale, window, rotary, norms)
    if norms is not None:
        queries = F.rms_norm(queries.float(), norms[0].shape, norms[0], norms[2]).to(queries.dtype)
        key = F.rms_norm(key.float(), norms[1].shape, norms[1], norms[2]).to(key.dtype)
    if rotary is not None:
        cos, sin = (table[lengths] for table in rotary)
        queries, key = turned(queries, cos, sin), turned(key, cos, sin)
    rows = torch.arange(len(keys), device=keys.device)
    keys[rows, :, lengths], values[rows, :, lengths] = key, value
    places = torch.arange(keys.shape[2], device=keys.device)
    hidden = places > lengths.unsqueeze(1)
    if window is not None:
        hidden = hidden | (places <= lengths.unsqueeze(1) - window)
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    scores = (grouped @ keys.transpose(-1, -2)).float() * scale
    weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
    # Positions beyond the length are uninitialised, and may be NaN.
    seen = values.masked_fill(hidden[:, None, :, None], 0)
    return (weights.to(values.dtype) @ seen).flatten(1, 2)


def swiglu(hidden: Tensor, weights: Tensor | None) -> Tensor:
    """silu(gate) · value, with the E parts of each row multiplied by its `weights` [B, E], if given. hidden
    [B, E · 2 · I], in each part the gate first → [B, E · I]."""
    if hidden.is_cuda:
        return _triton().swiglu(hidden, weights)
    gate, value = hidden.float().unflatten(-1, (1 if weights is None else weights.shape[1], 2, -1)).unbind(-2)
    active = F.silu(gate) * value
    if weights is not None:
        active = active * weights.unsqueeze(-1)
    return active.flatten(-2).to(hidden.dtype)


def squared_relu(hidden: Tensor, weights: Tensor | None) -> Tensor:
    """relu(hidden)², with the E equal parts of each row multiplied by its `weights` [B, E], if given. hidden
    [B, E · I]."""
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


def softmax_route(x: Tensor, router: Tensor, top_k: int, normalise: bool) -> Tensor:
    """The weight of every expert [B, E] by a softmax over all, 0 where it is not chosen; `normalise`: scaled to sum to
    1. x [B, D] and router [E, D], float32."""
    if x.is_cuda:
        return _triton().softmax_route(x, router, top_k, normalise)
    chosen, weights = moe.softmax_route(x, router, top_k, normalise)
    return torch.zeros(len(x), len(router), device=x.device).scatter_(1, chosen, weights)


def _triton():  # type: ignore[no-untyped-def]
    from cascade.rollout.torch_engine import triton_kernels  # Triton comes with PyTorch's CUDA builds only.

    return triton_kernels
