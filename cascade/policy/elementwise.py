"""Rotary positions and gated units of a forward pass, which save only what their gradients need.

On CUDA each is one kernel (`triton_elementwise.py`); other devices use the functions below, which are also the
reference for testing the kernels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864), pairing the halves of a head: x [tokens, heads, d], cos and sin [tokens, r].
    The first 2r channels are rotated, the others unchanged. Computed in at least float32."""
    return _Rotate.apply(x, cos, sin)


def swiglu(gate: Tensor, up: Tensor, weight: Tensor | None = None) -> Tensor:
    """silu(gate) · up, with each row multiplied by its `weight` [n], if given. gate and up [n, I]."""
    return _SwiGLU.apply(gate, up, weight)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return turned(gradients[0], cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if x.is_cuda:
        return _triton().turned(x, cos, sin)
    half = cos.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], -1)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        if gate.is_cuda:
            return _triton().swiglu(gate, up, weight)
        out = F.silu(gate).mul_(up)
        return out if weight is None else out.mul_(weight.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        if gate.is_cuda:
            return _triton().swiglu_backward(gradients[0], gate, up, weight)
        sigmoid = gate.sigmoid()
        active = gate * sigmoid
        by_out, by_weight = gradients[0], None
        if weight is not None:
            by_weight = (by_out * active * up).sum(1)
            by_out = by_out * weight.unsqueeze(1)
        # silu' = σ + silu (1 - σ)
        slope = torch.addcmul(sigmoid, active, 1 - sigmoid)
        return slope.mul_(up).mul_(by_out), active.mul_(by_out), by_weight


def _triton():  # type: ignore[no-untyped-def]
    from cascade.policy import triton_elementwise  # Triton comes with PyTorch's CUDA builds only.

    return triton_elementwise
