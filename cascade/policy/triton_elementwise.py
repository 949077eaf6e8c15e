"""The functions of `elementwise.py` and the sums of `moe.py` in Triton, one kernel each. Computed in float32 for all
dtypes of the tensors."""

# mypy: ignore-errors
import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH = 1024


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    tokens, heads, size = x.shape
    x = x if x.stride(2) == 1 and x.stride(1) == size else x.contiguous()
    out = torch.empty(tokens, heads, size, dtype=x.dtype, device=x.device)
    half = cos.shape[1]
    if tokens:
        _turned[(tokens,)](
            x, cos, sin, out, x.stride(0), heads, size, half,
            triton.next_power_of_2(heads), triton.next_power_of_2(size),
        )  # fmt: skip
    return out


@triton.jit
def _turned(
    x, cos, sin, out, stride,
    HEADS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Channel d of the first 2r is paired with one of the other half, with the sign of its half."""
    token = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, BLOCK_H)[:, None], tl.arange(0, BLOCK_D)[None, :]
    real = (h < HEADS) & (d < SIZE)
    inside = d < 2 * HALF
    pair = tl.where(d < HALF, d + HALF, d - HALF)
    own = tl.load(x + token * stride + h * SIZE + d, real, 0.0)
    other = tl.load(x + token * stride + h * SIZE + pair, real & inside, 0.0).to(tl.float32)
    angle = token * HALF + tl.where(d < HALF, d, d - HALF)
    c = tl.load(cos + angle, inside, 0.0)
    s = tl.load(sin + angle, inside, 0.0)
    s = tl.where(d < HALF, -s, s)
    result = tl.where(inside, own.to(tl.float32) * c + other * s, own.to(tl.float32))
    tl.store(out + token * HEADS * SIZE + h * SIZE + d, result.to(out.dtype.element_ty), real)


def swiglu(gate: Tensor, up: Tensor, weight: Tensor | None) -> Tensor:
    rows, width = gate.shape
    out = torch.empty(rows, width, dtype=gate.dtype, device=gate.device)
    if rows:
        grid = (rows, triton.cdiv(width, WIDTH))
        _swiglu[grid](gate, up, weight, out, width, gate.stride(0), up.stride(0), weight is not None, WIDTH)
    return out


@triton.jit
def _swiglu(gate, up, weight, out, width, gate_stride, up_stride, HAS_WEIGHT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    g = tl.load(gate + row * gate_stride + at, real, 0.0).to(tl.float32)
    value = g * tl.sigmoid(g) * tl.load(up + row * up_stride + at, real, 0.0).to(tl.float32)
    if HAS_WEIGHT:
        value *= tl.load(weight + row).to(tl.float32)
    tl.store(out + row * width + at, value.to(out.dtype.element_ty), real)


def swiglu_backward(
    by_out: Tensor, gate: Tensor, up: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    rows, width = gate.shape
    by_out = by_out.contiguous()
    by_gate = torch.empty(rows, width, dtype=gate.dtype, device=gate.device)
    by_up = torch.empty_like(by_gate)
    by_weight = None if weight is None else torch.empty_like(weight)
    if rows:
        _swiglu_backward[(rows,)](
            by_out, gate, up, weight, by_gate, by_up, by_weight, width, gate.stride(0), up.stride(0),
            weight is not None, WIDTH,
        )  # fmt: skip
    return by_gate, by_up, by_weight


@triton.jit
def _swiglu_backward(
    by_out, gate, up, weight, by_gate, by_up, by_weight, width, gate_stride, up_stride,
    HAS_WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for one row, so that the weight's gradient is a sum in a fixed order."""
    row = tl.program_id(0).to(tl.int64)
    scale = 1.0
    if HAS_WEIGHT:
        scale = tl.load(weight + row).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        real = at < width
        g = tl.load(gate + row * gate_stride + at, real, 0.0).to(tl.float32)
        u = tl.load(up + row * up_stride + at, real, 0.0).to(tl.float32)
        by = tl.load(by_out + row * width + at, real, 0.0).to(tl.float32)
        sigmoid = tl.sigmoid(g)
        active = g * sigmoid
        if HAS_WEIGHT:
            total += by * active * u
        by *= scale
        slope = sigmoid + active * (1.0 - sigmoid)
        tl.store(by_gate + row * width + at, (by * u * slope).to(by_gate.dtype.element_ty), real)
        tl.store(by_up + row * width + at, (by * active).to(by_up.dtype.element_ty), real)
    if HAS_WEIGHT:
        tl.store(by_weight + row, tl.sum(total).to(by_weight.dtype.element_ty))


def sum_of_rows(x: Tensor, rows: Tensor, copies: int) -> Tensor:
    x = x.contiguous()
    count, width = len(rows) // copies, x.shape[1]
    out = torch.empty(count, width, dtype=x.dtype, device=x.device)
    if count:
        _sum_of_rows[(count, triton.cdiv(width, WIDTH))](x, rows, out, len(x), width, copies, WIDTH)
    return out


@triton.jit
def _sum_of_rows(x, rows, out, count, width, COPIES: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for copy in tl.static_range(COPIES):
        row = tl.load(rows + token * COPIES + copy)
        total += tl.load(x + row * width + at, (at < width) & (row < count), 0.0).to(tl.float32)
    tl.store(out + token * width + at, total.to(out.dtype.element_ty), at < width)
