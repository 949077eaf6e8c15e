"""Decoding on CPUs: prefill with the trainer's forward pass, then one fused step per token.

Keys and values of a prompt are stored once for all its rollouts, those of new tokens per row. `cuda_graphs.py` is the
counterpart on CUDA.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy.blocks import AttentionMemory
from cascade.rollout.torch_engine.decoder import Prefix
from cascade.rollout.torch_engine.prompts import padded, read_prompts


class Cache(Protocol):
    def keep(self, rows: Tensor, prompts: Tensor) -> None:
        """Keep only these rows and these prompts."""
        ...


class Weights(Protocol):
    """A model's weights for decoding: the model's own, and tensors derived from them at each refresh."""

    model: PreTrainedModel

    def cache(self, n: int, memories: list[Any], shared: "SharedPrompts") -> Cache | None:
        """The decoding state of layer n, from the memory of its forward pass over the prompts; None if it has none."""
        ...

    def step(self, tokens: Tensor, shared: "SharedPrompts", caches: list[Any]) -> Tensor:
        """Append one token per row; returns hidden states [B, D], after the final norm."""
        ...


class CachedDecoder:
    def __init__(self, weights: Weights):
        self.weights = weights
        self._head: Any = weights.model.get_output_embeddings()

    def prefill(self, prompts: list[list[int]], rows: Tensor, known: Sequence[Prefix | None] = ()) -> Tensor:
        self._read = read = read_prompts(self.weights.model, prompts, rows.device, known)
        rows = read.place[rows]
        self._shared = SharedPrompts(read.lengths, rows)
        self._caches = [
            self.weights.cache(n, memories, self._shared) if memories else None
            for n, memories in enumerate(read.memories)
        ]
        return self._head(read.hidden)[rows]

    def prefix(self, prompt: int) -> Prefix | None:
        return self._read.prefix(prompt)

    def step(self, tokens: Tensor) -> Tensor:
        self._shared.added += 1
        return self._head(self.weights.step(tokens, self._shared, self._caches))

    def keep(self, rows: Tensor) -> None:
        prompts = self._shared.keep(rows)
        for cache in self._caches:
            if cache is not None:
                cache.keep(rows, prompts)


class SharedPrompts:
    """Which row continues which prompt. Row i has index `seat[i]` in [prompts · seats], where seats is the size of the
    largest group, so that attention of a group's queries to their prompt's keys is one matrix product."""

    def __init__(self, lengths: Tensor, rows: Tensor):
        self.lengths = lengths
        self.added = 0
        """Number of positions after the prompts, the current step's included."""
        self._seat_rows(rows)

    def _seat_rows(self, rows: Tensor) -> None:
        self.rows = rows
        order = rows.argsort(stable=True)
        counts = torch.bincount(rows, minlength=len(self.lengths))
        first = counts.cumsum(0) - counts
        self.seats = int(counts.max())
        seat = torch.empty_like(rows)
        seat[order] = torch.arange(len(rows), device=rows.device) - first[rows[order]]
        self.seat = rows * self.seats + seat
        width = int(self.lengths.max())
        padding = torch.arange(width, device=rows.device) >= self.lengths.unsqueeze(1)
        self.bias = torch.zeros(padding.shape, device=rows.device).masked_fill_(padding, -torch.inf)[:, None, None]
        self._windowed: dict[int, tuple[int, Tensor]] = {}

    @property
    def positions(self) -> Tensor:
        """Positions of the current step's tokens [B]."""
        return self.lengths[self.rows] + (self.added - 1)

    def bias_within(self, window: int | None) -> Tensor:
        """Attention bias of the prompts' keys [prompts, 1, 1, L]: -∞ for padding and for positions outside the sliding
        window."""
        width = self.bias.shape[-1]
        if window is None or width + self.added <= window:
            return self.bias
        found = self._windowed.get(window)
        if found is None or found[0] != self.added:
            gone = self.lengths.unsqueeze(1) + (self.added - window)
            past = torch.arange(width, device=gone.device) < gone
            found = self.added, self.bias.masked_fill(past[:, None, None], -torch.inf)
            self._windowed[window] = found
        return found[1]

    def keep(self, rows: Tensor) -> Tensor:
        """Old indices of the prompts that still have a row."""
        left, rows = self.rows[rows].unique(return_inverse=True)
        self.lengths = self.lengths[left]
        self._seat_rows(rows)
        return left

    def gather(self, per_row: Tensor) -> Tensor:
        """[B, heads, n, d] → [prompts, heads, seats · n, d], empty seats zero."""
        heads, n, d = per_row.shape[1:]
        out = per_row.new_zeros(len(self.lengths) * self.seats, heads, n, d)
        out[self.seat] = per_row
        return out.view(-1, self.seats, heads, n, d).transpose(1, 2).reshape(-1, heads, self.seats * n, d)

    def scatter(self, per_prompt: Tensor) -> Tensor:
        """The inverse of `gather`: [prompts, heads, seats · n, d] → [B, heads, n, d]."""
        prompts, heads, _, d = per_prompt.shape
        by_seat = per_prompt.view(prompts, heads, self.seats, -1, d).transpose(1, 2)
        return by_seat.reshape(prompts * self.seats, heads, -1, d)[self.seat]


class AttentionCache:
    """Keys and values of the prompts [prompts, heads, L, d] and of later tokens [B, heads, capacity, d]."""

    def __init__(self, memories: list[AttentionMemory], shared: SharedPrompts, scale: float, window: int | None = None):
        self.shared, self.scale, self.window = shared, scale, window
        width = max(m.keys.shape[2] for m in memories)
        self.prompt_keys, self.prompt_values = (
            padded(parts, width) for parts in ([m.keys for m in memories], [m.values for m in memories])
        )
        self.heads, self.dim = self.prompt_keys.shape[1], self.prompt_keys.shape[3]
        rows = len(shared.rows)
        self.keys, self.values = self.prompt_keys.new_empty(2, rows, self.heads, 32, self.dim)
        self.length = 0

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the new position: q [B, H, d], k and v [B, heads, d] → [B, H · d]."""
        if self.length == self.keys.shape[2]:
            self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], 2)
            self.values = torch.cat([self.values, torch.empty_like(self.values)], 2)
        self.keys[:, :, self.length] = k
        self.values[:, :, self.length] = v
        self.length += 1
        first = 0 if self.window is None else max(0, self.length - self.window)
        q = q.unflatten(1, (self.heads, -1)) * self.scale
        to_prompt = self.shared.gather(q) @ self.prompt_keys.transpose(-1, -2) + self.shared.bias_within(self.window)
        to_own = q @ self.keys[:, :, first : self.length].transpose(-1, -2)
        weights = torch.cat([self.shared.scatter(to_prompt), to_own], -1).softmax(-1)
        on_prompt, on_own = weights.split([self.prompt_keys.shape[2], self.length - first], -1)
        y = self.shared.scatter(self.shared.gather(on_prompt) @ self.prompt_values)
        y = y + on_own @ self.values[:, :, first : self.length]
        return y.reshape(len(q), -1)

    def keep(self, rows: Tensor, prompts: Tensor) -> None:
        width = self.shared.bias.shape[-1]
        self.prompt_keys, self.prompt_values = (
            self.prompt_keys[prompts, :, :width],
            self.prompt_values[prompts, :, :width],
        )
        self.keys, self.values = self.keys[rows], self.values[rows]
