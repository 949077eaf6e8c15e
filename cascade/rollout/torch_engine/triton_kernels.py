"""The functions of `kernels.py` in Triton, one kernel each. Sums are float32 for all dtypes of the buffers."""

# mypy: ignore-errors
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor


def add_norm(x: Tensor, update: Tensor | None, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=dtype, device=x.device)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](x, update, weight, out, width, epsilon, update is not None, block, num_warps=_warps(block))
    return out


@triton.jit
def _add_norm(x, update, weight, out, width, epsilon, HAS_UPDATE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    real = at < width
    value = tl.load(x + row + at, real, 0.0)
    if HAS_UPDATE:
        value += tl.load(update + row + at, real, 0.0).to(tl.float32)
        tl.store(x + row + at, value, real)
    scale = tl.rsqrt(tl.sum(value * value) / width + epsilon)
    normed = value * scale * tl.load(weight + at, real, 0.0)
    tl.store(out + row + at, normed.to(out.dtype.element_ty), real)


def gated_norm(y: Tensor, gate: Tensor, weight: Tensor, group: int, epsilon: float, dtype: torch.dtype) -> Tensor:
    rows, width = y.shape
    out = torch.empty(rows, width, dtype=dtype, device=y.device)
    block = triton.next_power_of_2(group)
    _gated_norm[(rows, width // group)](
        y, gate, weight, out, width, gate.stride(0), group, epsilon, block, num_warps=_warps(block)
    )
    return out


@triton.jit
def _gated_norm(y, gate, weight, out, width, gate_stride, group, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < group
    at += tl.program_id(1) * group
    by = tl.load(gate + row * gate_stride + at, real, 0.0).to(tl.float32)
    value = tl.load(y + row * width + at, real, 0.0) * by * tl.sigmoid(by)
    scale = tl.rsqrt(tl.sum(value * value) / group + epsilon)
    normed = value * scale * tl.load(weight + at, real, 0.0)
    tl.store(out + row * width + at, normed.to(out.dtype.element_ty), real)


def convolve(window: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows, taps, channels = window.shape
    out = torch.empty(rows, channels, dtype=inputs.dtype, device=inputs.device)
    _convolve[(rows, triton.cdiv(channels, 512))](
        window, inputs, weight, bias, out, channels, inputs.stride(0), taps, bias is not None, 512
    )
    return out


@triton.jit
def _convolve(
    window, inputs, weight, bias, out, channels, stride, TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < channels
    new = tl.load(inputs + row * stride + at, real, 0.0)
    total = new.to(tl.float32) * tl.load(weight + TAPS * channels + at, real, 0.0)
    if HAS_BIAS:
        total += tl.load(bias + at, real, 0.0)
    past_at = window + row * TAPS * channels + at
    for tap in tl.static_range(TAPS):
        past = tl.load(past_at + tap * channels, real, 0.0)
        total += past.to(tl.float32) * tl.load(weight + tap * channels + at, real, 0.0)
        if tap > 0:
            tl.store(past_at + (tap - 1) * channels, past, real)
    tl.store(past_at + (TAPS - 1) * channels, new, real)
    tl.store(out + row * channels + at, (total * tl.sigmoid(total)).to(out.dtype.element_ty), real)


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
    rows, heads, size, channels = state.shape
    y = torch.empty(rows, heads * channels, dtype=torch.float32, device=state.device)
    _advance_state[(rows, heads)](
        state, mixed, dt, dt_bias, a, d, y, mixed.stride(0), dt.stride(0), *limits, heads, groups, size, channels,
        triton.next_power_of_2(size), triton.next_power_of_2(channels), num_warps=4,
    )  # fmt: skip
    return y


@triton.jit
def _advance_state(
    state, mixed, dt, dt_bias, a, d, y, mixed_stride, dt_stride, low, high,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, SIZE: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    step = tl.load(dt + row * dt_stride + head).to(tl.float32) + tl.load(dt_bias + head)
    step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(step)))
    step = tl.minimum(tl.maximum(step, low), high)
    n, p = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_P)
    mixed += row * mixed_stride
    x = tl.load(mixed + head * CHANNELS + p, p < CHANNELS, 0.0).to(tl.float32)
    of_group = mixed + HEADS * CHANNELS + head // (HEADS // GROUPS) * SIZE + n
    b = tl.load(of_group, n < SIZE, 0.0).to(tl.float32)
    c = tl.load(of_group + GROUPS * SIZE, n < SIZE, 0.0).to(tl.float32)
    at = state + (row * HEADS + head) * SIZE * CHANNELS + n[:, None] * CHANNELS + p[None, :]
    real = (n < SIZE)[:, None] & (p < CHANNELS)[None, :]
    new = tl.load(at, real, 0.0) * tl.exp(step * tl.load(a + head)) + b[:, None] * (x * step)[None, :]
    tl.store(at, new, real)
    out = tl.sum(new * c[:, None], 0) + tl.load(d + head) * x
    tl.store(y + (row * HEADS + head) * CHANNELS + p, out, p < CHANNELS)


def attend(
    queries: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None,
    rotary: tuple[Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    rows, heads, size = queries.shape
    held, capacity = keys.shape[1:3]
    out = torch.empty(rows, heads, size, dtype=queries.dtype, device=queries.device)
    cos, sin = rotary or (None, None)
    query_norm, key_norm, epsilon = norms or (None, None, 0.0)
    _attend[(rows, held)](
        queries, key, value, keys, values, lengths, out, queries.stride(0), key.stride(0), value.stride(0),
        capacity, scale, window or 0, cos, sin, query_norm, key_norm, epsilon, held, heads // held, size,
        0 if cos is None else cos.shape[1], norms is not None, window is not None,
        max(16, triton.next_power_of_2(heads // held)), max(16, triton.next_power_of_2(size)), 64,
    )  # fmt: skip
    return out


@triton.jit
def _heads(
    at, d, real, weight, cos, sin, epsilon,
    SIZE: tl.constexpr, HALF: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Heads [h, d] at the pointers `at` [h, 1], normalised and rotated, in float32. Channel d of the first 2 · HALF is
    paired with one of the other half, with the sign of its half."""
    value = tl.load(at + d, real, 0.0).to(tl.float32)
    scale = tl.full([value.shape[0]], 1.0, tl.float32)
    if NORMED:
        scale = tl.rsqrt(tl.sum(value * value, 1) / SIZE + epsilon)
        value *= scale[:, None] * tl.load(weight + d, d < SIZE, 0.0)
    if HALF > 0:
        inside = d < 2 * HALF
        angle, pair = tl.where(d < HALF, d, d - HALF), tl.where(d < HALF, d + HALF, d - HALF)
        other = tl.load(at + pair, real & inside, 0.0).to(tl.float32)
        if NORMED:
            other *= scale[:, None] * tl.load(weight + pair, inside, 0.0)
        s = tl.load(sin + angle, inside, 0.0)
        value = value * tl.load(cos + angle, inside, 1.0) + other * tl.where(d < HALF, -s, s)
    return value


@triton.jit
def _attend(
    queries, key, value, keys, values, lengths, out, query_stride, key_stride, value_stride, capacity, scale, window,
    cos, sin, query_norm, key_norm, epsilon,
    HELD: tl.constexpr, SHARE: tl.constexpr, SIZE: tl.constexpr,
    HALF: tl.constexpr, NORMED: tl.constexpr, SLIDING: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program for one row and one key head, with its SHARE query heads, by the online softmax."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + row)
    h, d, k = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_K)
    one = tl.arange(0, 1)
    asked = (h < SHARE)[:, None] & (d < SIZE)[None, :]
    place = (head * SHARE + h)[:, None] * SIZE + d[None, :]
    if HALF > 0:
        cos += length * HALF
        sin += length * HALF
    of_row = queries + row * query_stride + (head * SHARE + h)[:, None] * SIZE
    q = _heads(of_row, d[None, :], asked, query_norm, cos, sin, epsilon, SIZE, HALF, NORMED)
    of_row = key + row * key_stride + (head + one)[:, None] * SIZE
    turned = _heads(of_row, d[None, :], (d < SIZE)[None, :], key_norm, cos, sin, epsilon, SIZE, HALF, NORMED)
    # Rounded to the dtype of the cache.
    q = q.to(keys.dtype.element_ty)
    new_key = tl.sum(turned, 0).to(keys.dtype.element_ty)
    new_value = tl.load(value + row * value_stride + head * SIZE + d, d < SIZE, 0.0)
    cache = (row * HELD + head) * capacity * SIZE
    tl.store(keys + cache + length * SIZE + d, new_key, d < SIZE)
    tl.store(values + cache + length * SIZE + d, new_value, d < SIZE)
    highest = tl.sum(q.to(tl.float32) * new_key.to(tl.float32)[None, :], 1) * scale
    total = tl.full([BLOCK_Q], 1.0, tl.float32)
    sum_of = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32) + new_value.to(tl.float32)[None, :]
    first = length * 0
    if SLIDING:
        first = tl.maximum(length - window + 1, 0)
    for start in range(first // BLOCK_K * BLOCK_K, length, BLOCK_K):
        held = (start + k < length) & (start + k >= first)
        at = cache + (start + k)[:, None] * SIZE + d[None, :]
        real = held[:, None] & (d < SIZE)[None, :]
        old_keys = tl.load(keys + at, real, 0.0)
        scores = tl.dot(q, tl.trans(old_keys), input_precision="ieee") * scale
        scores = tl.where(held[None, :], scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        mass = tl.exp(scores - higher[:, None])
        fade = tl.exp(highest - higher)
        old_values = tl.load(values + at, real, 0.0)
        sum_of = sum_of * fade[:, None] + tl.dot(mass.to(old_values.dtype), old_values, input_precision="ieee")
        total = total * fade + tl.sum(mass, 1)
        highest = higher
    result = sum_of / total[:, None]
    tl.store(out + row * HELD * SHARE * SIZE + place, result.to(out.dtype.element_ty), asked)


def swiglu(hidden: Tensor, weights: Tensor | None) -> Tensor:
    rows, width = hidden.shape
    parts = 1 if weights is None else weights.shape[1]
    part = width // parts // 2
    out = torch.empty(rows, parts * part, dtype=hidden.dtype, device=hidden.device)
    _swiglu[(rows, triton.cdiv(parts * part, 1024))](
        hidden, weights, out, parts * part, parts, part, weights is not None, 1024
    )
    return out


@triton.jit
def _swiglu(hidden, weights, out, width, parts, part, HAS_WEIGHTS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    gates = hidden + row * 2 * width + at + at // part * part
    gate = tl.load(gates, real, 0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * tl.load(gates + part, real, 0.0).to(tl.float32)
    if HAS_WEIGHTS:
        value *= tl.load(weights + row * parts + at // part, real, 0.0)
    tl.store(out + row * width + at, value.to(out.dtype.element_ty), real)


def squared_relu(hidden: Tensor, weights: Tensor | None) -> Tensor:
    rows, width = hidden.shape
    out = torch.empty_like(hidden)
    parts = 1 if weights is None else weights.shape[1]
    _squared_relu[(rows, triton.cdiv(width, 1024))](
        hidden, weights, out, width, parts, width // parts, weights is not None, 1024
    )
    return out


@triton.jit
def _squared_relu(hidden, weights, out, width, parts, part, HAS_WEIGHTS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    value = tl.maximum(tl.load(hidden + row * width + at, real, 0.0).to(tl.float32), 0.0)
    value = value * value
    if HAS_WEIGHTS:
        value *= tl.load(weights + row * parts + at // part, real, 0.0)
    tl.store(out + row * width + at, value.to(out.dtype.element_ty), real)


def route(x: Tensor, gate: Any) -> Tensor:
    rows, width = x.shape
    out = torch.empty(rows, gate.num_experts, dtype=torch.float32, device=x.device)
    _route[(rows,)](
        x, gate.weight, gate.e_score_correction_bias, out, width, gate.routed_scaling_factor,
        gate.num_experts, gate.top_k, gate.norm_topk_prob, triton.next_power_of_2(gate.num_experts), 128,
    )  # fmt: skip
    return out


@triton.jit
def _route(
    x, weight, bias, out, width, scale,
    EXPERTS: tl.constexpr, CHOSEN: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, BLOCK_E)
    logits = tl.zeros([BLOCK_E], tl.float32)
    for start in range(0, width, BLOCK_D):
        at = start + tl.arange(0, BLOCK_D)
        value = tl.load(x + row * width + at, at < width, 0.0)
        real = (e < EXPERTS)[:, None] & (at < width)[None, :]
        logits += tl.sum(tl.load(weight + e[:, None] * width + at[None, :], real, 0.0) * value[None, :], 1)
    scores = tl.sigmoid(logits)
    choice = tl.where(e < EXPERTS, scores + tl.load(bias + e, e < EXPERTS, 0.0), -float("inf"))
    kept = tl.zeros([BLOCK_E], tl.float32)
    for _ in tl.static_range(CHOSEN):
        best = e == tl.argmax(choice, 0)
        kept = tl.where(best, scores, kept)
        choice = tl.where(best, -float("inf"), choice)
    if NORMALISE:
        kept = kept / (tl.sum(kept) + 1e-20)
    tl.store(out + row * EXPERTS + e, kept * scale, e < EXPERTS)


def softmax_route(x: Tensor, router: Tensor, top_k: int, normalise: bool) -> Tensor:
    logits = F.linear(x, router)
    rows, experts = logits.shape
    out = torch.empty_like(logits)
    _softmax_route[(rows,)](logits, out, experts, top_k, normalise, triton.next_power_of_2(experts), num_warps=1)
    return out


@triton.jit
def _softmax_route(
    logits, out, EXPERTS: tl.constexpr, CHOSEN: tl.constexpr, NORMALISE: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, BLOCK)
    logit = tl.load(logits + row * EXPERTS + e, e < EXPERTS, -float("inf"))
    scores = tl.exp(logit - tl.max(logit, 0))
    scores = scores / tl.sum(scores)
    choice = tl.where(e < EXPERTS, scores, -1.0)
    kept = tl.zeros([BLOCK], tl.float32)
    for _ in tl.static_range(CHOSEN):
        best = e == tl.argmax(choice, 0)
        kept = tl.where(best, scores, kept)
        choice = tl.where(best, -1.0, choice)
    if NORMALISE:
        kept = kept / tl.sum(kept)
    tl.store(out + row * EXPERTS + e, kept, e < EXPERTS)


def _warps(block: int) -> int:
    return min(16, max(1, block // 256))
