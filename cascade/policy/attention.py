"""Attention with an optional deterministic backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# cuDNN's attention takes tens of milliseconds to plan every new shape; the flash kernels do not.
torch.backends.cuda.enable_cudnn_sdp(False)

_sdpa = F.scaled_dot_product_attention


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """q [R, H, L, d], k and v [R, H, keys, d], mask [R, 1, L, keys] or None for causal order → [R, H, L, d]."""
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, *arguments: Any, **settings: Any) -> Tensor:
    """torch.nn.functional's, with a deterministic backward pass where deterministic algorithms are asked for. CUDA's
    flash and memory-efficient kernels have one, but use it only where all operations must be deterministic, not where
    that is only warned of; so that mode is set for these kernels alone."""
    if not (q.is_cuda and torch.is_grad_enabled() and torch.are_deterministic_algorithms_enabled()):
        return _sdpa(q, k, v, *arguments, **settings)
    return _deterministic(q, k, v, *arguments, **settings)


def _deterministic(q: Tensor, k: Tensor, v: Tensor, *arguments: Any, **settings: Any) -> Tensor:
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    out: Tensor = _Strict.apply(_sdpa(*_Lenient.apply(lenient, q, k, v), *arguments, **settings))
    return out


@contextmanager
def deterministic_in_modules() -> Iterator[None]:
    """Within it other libraries' modules attend so too."""
    F.scaled_dot_product_attention = scaled_dot_product_attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = _sdpa


class _Strict(torch.autograd.Function):
    """Sets the mode before the backward pass of what it is applied to. It keeps no tensors, so that activation
    checkpointing keeps none either."""

    @staticmethod
    def forward(ctx: Any, out: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        torch.use_deterministic_algorithms(True)
        return gradients[0]


class _Lenient(torch.autograd.Function):
    """Sets the mode back after the backward pass of what is applied to its outputs."""

    @staticmethod
    def forward(ctx: Any, lenient: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.lenient = lenient
        return tuple(tensor.view_as(tensor) for tensor in inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        torch.use_deterministic_algorithms(True, warn_only=ctx.lenient)
        return None, *gradients
