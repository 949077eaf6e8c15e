"""Attention with an optional deterministic backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# cuDNN's attention takes tens of milliseconds to plan every new shape; the flash kernels do not.
torch.backends.cuda.enable_cudnn_sdp(False)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """q [R, H, L, d], k and v [R, H, keys, d], mask [R, 1, L, keys] or None for causal order → [R, H, L, d]."""
    if q.is_cuda and torch.is_grad_enabled() and torch.are_deterministic_algorithms_enabled():
        return _Deterministic.apply(q, k, v, mask, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)


class _Deterministic(torch.autograd.Function):
    """CUDA's flash and memory-efficient kernels have a deterministic backward pass, but use it only if all operations
    must be deterministic. This sets that mode for these kernels alone."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        with torch.enable_grad():
            q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
            ctx.inputs = q, k, v
            ctx.out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        lenient = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            found = torch.autograd.grad(ctx.out, ctx.inputs, gradients[0])
        finally:
            torch.use_deterministic_algorithms(True, warn_only=lenient)
            del ctx.out, ctx.inputs
        return *found, None, None
