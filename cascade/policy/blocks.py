"""Rows of unequal length in one forward pass: the common parts of the engine's own forward passes.

Tokens are in blocks: rows of similar length, padded on the right. Token-wise layers run once over the tokens of all
blocks, attention block by block. Packed documents are separate rows. If several rows have a common prefix (the
rollouts of one prompt), the prefix is a row of an earlier block, computed once; its keys, values and states are used by
all of these rows, and gradients flow back through them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cascade.policy.attention import attention


@dataclass(frozen=True)
class AttentionMemory:
    """Keys and values [R, heads, L, head dim], with those of parents."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Past:
    """Context of a block's rows from an earlier forward pass: `lengths` [R], its number of tokens, and each layer's
    memory of these rows, with keys and values padded on the right."""

    lengths: Tensor
    memories: list[Any]


@dataclass(frozen=True)
class Block:
    """Rows of tokens [R, L], padded on the right after `lengths` [R]; None: no padding.

    Their context, if any: `parent` is the index of an earlier block in the list, and for each row [R] the row in that
    block which it continues; `past` is context from an earlier forward pass.
    """

    tokens: Tensor
    lengths: Tensor | None = None
    parent: tuple[int, Tensor] | None = None
    past: Past | None = None


@dataclass
class Forward:
    hidden: Tensor
    """[tokens, D], after the final norm: the blocks in order, each in row-major order, with padding."""
    expert_counts: list[Tensor] = field(default_factory=list)
    """Per MoE layer [E]: tokens routed to each expert, padding not counted."""
    memories: list[list[Any]] = field(default_factory=list)
    """Per layer and block: MambaMemory or AttentionMemory, if later rows need it; empty for layers without memory."""


@dataclass(frozen=True)
class Span:
    """A block and what its layers need: its place among all tokens, and the keys that each position may see."""

    block: Block
    start: int
    rows: int
    length: int
    visible: Tensor | None
    """Which positions [R, L], parents' included, are keys and not padding; None: all."""
    mask: Tensor | None
    """[R, 1, L, keys]; None if plain causal attention suffices."""
    kept: bool
    """Whether later rows or the caller need the memory of this block."""
    real: Tensor | None = None
    """If the tokens are packed without padding: indices [tokens] of a padded block's tokens among its R · L."""
    before: Tensor | None = None
    """Tokens before each row [R]; None: none."""
    windows: dict[int, Tensor | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The block's number of tokens."""
        return self.rows * self.length if self.real is None else len(self.real)

    def of(self, flat: Tensor) -> Tensor:
        """The block's part of a tensor of all tokens [tokens, ...], as rows [R, L, ...]."""
        part = flat[self.start : self.start + self.tokens]
        if self.real is not None:
            part = _Pad.apply(part, self.real, self.rows * self.length)
        return part.view(self.rows, self.length, *flat.shape[1:])

    def back(self, rows: Tensor) -> Tensor:
        """The inverse of `of`: [R, L, ...] → [tokens, ...]."""
        flat = rows.flatten(0, 1)
        return flat if self.real is None else _Unpad.apply(flat, self.real)

    @property
    def positions(self) -> Tensor:
        """The position of each token [R, L] in its sequence; [1, L] without context."""
        own = torch.arange(self.length, device=self.block.tokens.device).unsqueeze(0)
        return own if self.before is None else self.before.unsqueeze(1) + own

    def within(self, window: int | None) -> Tensor | None:
        """The mask for a sliding window of `window` positions, the current one included."""
        if window is None:
            return self.mask
        if window not in self.windows:
            self.windows[window] = self._within(window)
        return self.windows[window]

    def _within(self, window: int) -> Tensor | None:
        asks, device = self.positions, self.block.tokens.device
        keys = self.length if self.mask is None else self.mask.shape[3]
        if keys <= window:
            return self.mask
        held = asks
        if self.before is not None:
            held = torch.cat([torch.arange(keys - self.length, device=device).expand(self.rows, -1), asks], 1)
        near = asks.unsqueeze(2) - held.unsqueeze(1) < window
        mask = asks.unsqueeze(2) >= held.unsqueeze(1) if self.mask is None else self.mask.squeeze(1)
        return (mask & near).unsqueeze(1)


class _Pad(torch.autograd.Function):
    """[n, ...] → [places, ...]: row i goes to real[i], the rest is zero. The gradient of each of the two is the other's
    forward pass: it adds nothing up, so it is deterministic."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, real: Tensor, places: int) -> Tensor:
        ctx.save_for_backward(real)
        out = flat.new_zeros(places, *flat.shape[1:])
        out[real] = flat
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (real,) = ctx.saved_tensors
        return _Unpad.apply(gradients[0], real), None, None


class _Unpad(torch.autograd.Function):
    """[places, ...] → [n, ...], the rows at `real`."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        ctx.places = len(padded)
        return padded[real]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (real,) = ctx.saved_tensors
        return _Pad.apply(gradients[0], real, ctx.places), None


def spans_of(blocks: list[Block], keep: bool, packed: bool = False) -> list[Span]:
    """`packed`: the tokens of all blocks are concatenated without padding."""
    parents = {block.parent[0] for block in blocks if block.parent}
    spans: list[Span] = []
    start = 0
    for number, block in enumerate(blocks):
        rows, length = block.tokens.shape
        device = block.tokens.device
        visible, mask, real = None, None, None
        if block.lengths is not None:
            visible = torch.arange(length, device=device) < block.lengths.unsqueeze(1)
            real = visible.flatten().nonzero().squeeze(1) if packed else None
        if (past := _visible_before(block, spans)) is not None:
            own = torch.ones(rows, length, dtype=torch.bool, device=device) if visible is None else visible
            causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
            mask = torch.cat([past.unsqueeze(1).expand(-1, length, -1), causal.expand(rows, -1, -1)], 2).unsqueeze(1)
            visible = torch.cat([past, own], 1)
        kept, count = keep or number in parents, None if past is None else past.sum(1)
        spans.append(Span(block, start, rows, length, visible, mask, kept, real, count))
        start += spans[-1].tokens
    return spans


def _visible_before(block: Block, spans: list[Span]) -> Tensor | None:
    """Which positions of the context of a block's rows [R, keys] are not padding."""
    device = block.tokens.device
    if block.past is not None:
        return torch.arange(int(block.past.lengths.max()), device=device) < block.past.lengths.unsqueeze(1)
    if block.parent is None:
        return None
    above = spans[block.parent[0]]
    if above.visible is None:
        return torch.ones(len(block.tokens), above.length, dtype=torch.bool, device=device)
    return above.visible[block.parent[1]]


def before(span: Span, memories: list[Any], n: int) -> Any:
    """The memory in layer n that the rows of a block continue, if any."""
    if span.block.past is not None:
        return span.block.past.memories[n]
    if span.block.parent is None:
        return None
    number, row = span.block.parent
    above = memories[number]
    return type(above)(*(getattr(above, part.name)[row] for part in fields(above)))


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    spans: list[Span],
    memories: list[AttentionMemory | None],
    n: int,
    window: int | None = None,
) -> Tensor:
    """Attention of layer n within each row and to its context: queries [tokens, H, d], keys and values [tokens, K, d],
    each for H/K queries → [tokens, H · d]. Appends each block's memory."""
    out = []
    share = queries.shape[1] // keys.shape[1]
    for span in spans:
        q, k, v = (span.of(t).transpose(1, 2) for t in (queries, keys, values))
        if (past := before(span, memories, n)) is not None:
            k, v = torch.cat([past.keys, k], 2), torch.cat([past.values, v], 2)
        memories.append(AttentionMemory(k, v) if span.kept else None)
        y = attention(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), span.within(window), scale)
        out.append(span.back(y.transpose(1, 2).flatten(2)))
    return torch.cat(out) if len(out) > 1 else out[0]


def checkpointed(layer: Callable[[Tensor], Any], x: Tensor) -> Any:
    """The output of a layer; if a gradient is needed, only x is kept, and the layer is recomputed."""
    if not torch.is_grad_enabled():
        return layer(x)
    return checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    weight = full(norm.weight)
    return F.rms_norm(full(x), weight.shape, weight, norm.variance_epsilon).to(x.dtype)


def full(x: Tensor) -> Tensor:
    """Convert to float32, or leave a wider type."""
    return x if x.dtype == torch.float64 else x.float()
