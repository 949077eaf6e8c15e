"""The selective state-space recurrence of Mamba-2 as matrix products over chunks (arXiv 2405.21060, section 6).

    s_t = exp(Δ_t A) s_{t-1} + Δ_t B_t x_tᵀ        y_t = C_tᵀ s_t + D x_t

R rows, L positions, H heads of P channels, G groups of heads that share B and C, state size N. The state of a
group is kept as [N, H/G · P], so that building and reading it are plain matrix products without expanding B and
C over the heads. The gradient is implemented by hand: the time goes to elementwise passes over memory, not to the
products, and autograd makes three times as many.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def chunk_length(length: int, longest: int = 32) -> int:
    """The chunk that covers `length` positions with the least padding, at most `longest`."""
    return -(-length // -(-length // longest))


def ssd(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    chunk: int,
    initial: Tensor | None,
    need_final: bool,
) -> tuple[Tensor, Tensor | None]:
    """Outputs y [R, L, H, P] and, on request, the state after position L [R, G, N, H/G · P].

    x [R, L, H, P]; dt [R, L, H], after softplus and clamp, 0 at padding, which leaves the state unchanged; a [H],
    negative; b and c [R, L, G, N]; d [H]; `initial`: a state of the shape above, None for zero.
    """
    length = x.shape[1]
    if pad := -length % chunk:
        x, b, c = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, b, c))
        dt = F.pad(dt, (0, 0, 0, pad))
    y, final = _ChunkedScan.apply(x, dt, a, b, c, d, chunk, initial, need_final)
    return y[:, :length] if pad else y, final if need_final else None


@contextmanager
def _tensor_cores() -> Iterator[None]:
    """float32 products on tensor cores (TF32) on CUDA: the inputs were bfloat16, sums are float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _ChunkedScan(torch.autograd.Function):
    """Dimensions in the code: r rows, k chunks, q positions of a chunk, h heads, p channels, g groups, n state."""

    @staticmethod
    @_tensor_cores()
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        chunk: int,
        initial: Tensor | None,
        need_final: bool,
    ) -> tuple[Tensor, Tensor | None]:
        rows, length, heads, channels = x.shape
        groups, size = b.shape[2:]
        count, width = length // chunk, heads // groups * channels
        x = x.reshape(rows, count, chunk, heads, channels)
        dt = dt.reshape(rows, count, chunk, heads)
        b = b.reshape(rows, count, chunk, groups, size).transpose(2, 3)
        c = c.reshape(rows, count, chunk, groups, size).transpose(2, 3)
        log_decay = (dt * a).cumsum(2)

        # Within a chunk: (C Bᵀ ∘ decay from source to target, lower triangle) times the inputs.
        by_head = log_decay.transpose(2, 3)
        future = torch.full((chunk, chunk), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        decay = (by_head.unsqueeze(-1) - by_head.unsqueeze(-2)).add_(future).exp_()
        scores = (c @ b.transpose(-1, -2)).unsqueeze(3)
        mix = (decay.unflatten(2, (groups, -1)) * scores).flatten(2, 3)
        inputs = x.transpose(2, 3) * dt.transpose(2, 3).unsqueeze(-1)
        y = (mix @ inputs).transpose(2, 3)

        # Across chunks: each adds its contribution, decayed to the chunk's end, and reads the state before it.
        carries = count > 1 or initial is not None or need_final
        states, final = None, None
        if carries:
            end = log_decay[:, :, -1:]
            weight = (end - log_decay).exp_().mul_(dt).unsqueeze(-1)
            added = b.transpose(-1, -2) @ (x * weight).unflatten(3, (groups, -1)).flatten(4).transpose(2, 3)
            fade = _over_channels(end.squeeze(2).exp(), groups, channels)
            states = x.new_empty(rows, count + 1, groups, size, width)
            if initial is None:
                states[:, 0] = 0
            else:
                states[:, 0] = initial
            for k in range(count):
                torch.addcmul(added[:, k], states[:, k], fade[:, k], out=states[:, k + 1])
            carried = (c @ states[:, :-1]).transpose(2, 3).reshape(x.shape)
            y = torch.addcmul(y, carried, log_decay.exp().unsqueeze(-1), out=x.new_empty(x.shape))
            if need_final:
                final = states[:, -1].clone()
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, dt, a, b, c, d, log_decay, decay, mix, inputs, y, states)
            ctx.initial = initial is not None
        out = torch.addcmul(y, x, d.unsqueeze(-1), out=x.new_empty(x.shape))
        return out.view(rows, length, heads, channels), final

    @staticmethod
    @_tensor_cores()
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, a, b, c, d, log_decay, decay, mix, inputs, y, states = ctx.saved_tensors
        by_y, by_final = gradients
        rows, count, chunk, heads, channels = x.shape
        groups, size = b.shape[2], b.shape[4]
        assert by_y is not None
        by_y = by_y.reshape(x.shape)

        by_y_head = by_y.transpose(2, 3).contiguous()
        by_inputs = (mix.transpose(-1, -2) @ by_y_head).transpose(2, 3)
        by_mix = by_y_head @ inputs.transpose(-1, -2)
        by_scores = by_mix.mul_(decay).unflatten(2, (groups, -1)).sum(3)
        by_c, by_b = by_scores @ b, by_scores.transpose(-1, -2) @ c
        # y_t is linear in exp(log_decay_t), the later contributions of t in exp(-log_decay_t): their products with the
        # gradients are the gradient of log_decay, over all paths.
        by_log_decay = (by_y * y).sum(-1)
        by_initial = None
        if states is not None:
            end = log_decay[:, :, -1:]
            fade = _over_channels(end.squeeze(2).exp(), groups, channels)
            scaled = (by_y * log_decay.exp().unsqueeze(-1)).unflatten(3, (groups, -1)).flatten(4).transpose(2, 3)
            by_c += scaled @ states[:, :-1].transpose(-1, -2)
            by_before = c.transpose(-1, -2) @ scaled
            by_after = torch.empty_like(by_before)
            by_state = torch.zeros_like(by_before[:, 0]) if by_final is None else by_final
            for k in reversed(range(count)):
                by_after[:, k] = by_state
                by_state = torch.addcmul(by_before[:, k], by_state, fade[:, k])
            by_initial = by_state if ctx.initial else None
            to_end = (end - log_decay).exp_()
            held = (x * (to_end * dt).unsqueeze(-1)).unflatten(3, (groups, -1)).flatten(4).transpose(2, 3)
            by_b += held @ by_after.transpose(-1, -2)
            by_held = (b @ by_after).transpose(2, 3).reshape(x.shape)
            by_inputs = torch.addcmul(by_inputs, by_held, to_end.unsqueeze(-1))
            by_end = (by_after * states[:, 1:]).unflatten(-1, (-1, channels)).sum((3, 5)).flatten(2)
            by_log_decay[:, :, -1] += by_end
        along = (x * by_inputs).sum(-1)
        by_log_decay.addcmul_(along, dt, value=-1)
        by_step = by_log_decay.flip(2).cumsum(2).flip(2)
        by_dt = torch.addcmul(along, by_step, a)
        by_a = (by_step * dt).sum((0, 1, 2))
        by_d = (by_y * x).sum((0, 1, 2, 4))
        by_x = torch.addcmul(by_y * d.unsqueeze(-1), by_inputs, dt.unsqueeze(-1))
        shape = (rows, count * chunk)
        return (
            by_x.reshape(*shape, heads, channels),
            by_dt.view(*shape, heads),
            by_a,
            by_b.transpose(2, 3).reshape(*shape, groups, size),
            by_c.transpose(2, 3).reshape(*shape, groups, size),
            by_d,
            None,
            by_initial,
            None,
        )


def _over_channels(by_head: Tensor, groups: int, channels: int) -> Tensor:
    """[r, k, h] → [r, k, g, 1, h/g · p], to multiply a state."""
    return by_head.repeat_interleave(channels, -1).unflatten(-1, (groups, -1)).unsqueeze(3)


def ssd_step(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> Tensor:
    """One position: x [R, H, P], dt [R, H], b and c [R, G, N]; updates `state` [R, G, N, H/G · P]; y without D x."""
    rows, heads, channels = x.shape
    decay = (dt * a).exp().unsqueeze(-1).expand_as(x).reshape(rows, state.shape[1], 1, -1)
    state.mul_(decay)
    state.addcmul_(b.unsqueeze(-1), (x * dt.unsqueeze(-1)).view(decay.shape))
    return (c.unsqueeze(-2) @ state).view(rows, heads, channels)
