"""State space and convolution of Mamba-2 with the kernels of `mamba_ssm` and `causal_conv1d`, if installed.

They compute the same as `ssd.py` and `nemotron_h.py`, with matrix products in the inputs' dtype.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

CHUNK = 128
# mamba_ssm reads it when imported: a fixed configuration per kernel, which is deterministic and needs no autotuning.
os.environ.setdefault("MAMBA_DETERMINISTIC", "1")


def can_convolve(x: Tensor) -> bool:
    """Whether `causal_conv1d` is installed and accepts this tensor."""
    return _takes(x) and _installed("causal_conv1d")


def can_scan(x: Tensor) -> bool:
    """Whether `mamba_ssm` is installed and accepts this tensor."""
    return _takes(x) and _installed("mamba_ssm")


def _takes(x: Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


@cache
def _installed(name: str) -> bool:
    return find_spec(name) is not None


def convolution(inputs: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None) -> Tensor:
    """Causal depthwise convolution and SiLU. inputs [R, L, C], weight [C, K], bias [C], context [R, K - 1, C]."""
    from causal_conv1d import causal_conv1d_fn

    # Channels last, rows a multiple of 16 bytes apart.
    x = inputs if inputs.stride(-1) == 1 and inputs.stride(1) % 8 == 0 else inputs.contiguous()
    initial = None if context is None else context.contiguous().transpose(1, 2)
    return causal_conv1d_fn(x.transpose(1, 2), weight, bias, initial_states=initial, activation="silu").transpose(1, 2)


def scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    initial: Tensor | None,
    need_final: bool,
) -> tuple[Tensor, Tensor | None]:
    """Like `ssd.ssd`, with the same shapes: y [R, L, H, P] and, on request, the final state [R, G, N, H/G · P]."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    groups, channels = b.shape[2], x.shape[3]
    if initial is not None:  # [R, H, P, N] in mamba_ssm
        initial = initial.unflatten(3, (-1, channels)).permute(0, 1, 3, 4, 2).flatten(1, 2).contiguous()
    if not need_final:
        return mamba_chunk_scan_combined(x, dt, a, b, c, CHUNK, D=d, initial_states=initial), None
    y, final = mamba_chunk_scan_combined(x, dt, a, b, c, CHUNK, D=d, initial_states=initial, return_final_states=True)
    return y, final.unflatten(1, (groups, -1)).permute(0, 1, 4, 2, 3).flatten(3)
