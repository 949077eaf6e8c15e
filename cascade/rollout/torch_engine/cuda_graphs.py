"""Decoding on CUDA: CHECK steps, including the sampling of each token, are captured in a CUDA graph and replayed.

A step has about a hundred small kernels, whose launches take much longer than the kernels; a replayed step takes little
more than its memory traffic. A graph has fixed addresses and shapes, so every cache is in its own buffer and there is
one graph for each batch size in SIZES: a batch is padded to the next size, and moves to a smaller one when enough rows
have finished, which is checked between replays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.rollout.torch_engine import kernels
from cascade.rollout.torch_engine.prompts import read_prompts
from cascade.rollout.torch_engine.sampling import draw
from cascade.rollout.torch_engine.static_layers import Cast, stack_of

SIZES = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CHECK = 16
"""Steps per replay. Tokens that a row samples after its end, or beyond the limit, are dropped."""
ROOM = 256
"""Caches are allocated in multiples of so many positions."""
SHARE = 0.2
"""Largest share of the device's memory for caches; the trainer needs the rest."""


@dataclass(frozen=True)
class Decoded:
    """The sampled tokens of each row [B, limit], and the length of each response, its stop token included [B]."""

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor


def rows_within(each: float, memory: float) -> int:
    """The largest of SIZES whose caches fit into the SHARE of a device's memory that they may take; at least the
    smallest. `each`: bytes per row; `memory`: of the device, in bytes."""
    return max((size for size in SIZES if size * each <= SHARE * memory), default=SIZES[0])


class GraphDecoder:
    """Decodes with a copy of a model's weights in `dtype`; `load` copies changed weights.

    On devices other than CUDA the same steps run without capture.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype = torch.bfloat16):
        self.model: Any = model
        self._dtype = dtype
        self._device = model.device
        self._stack = stack_of(model)
        self._head = Cast(dtype, self._stack.head)
        self._rows = self._capacity = 0
        self._settings: tuple[float, float] = (1.0, 1.0)
        self._forget()

    def most_rows(self, positions: int) -> int:
        """The largest of SIZES whose caches, with so many positions, fit into the allowed memory; at least the
        smallest size."""
        if self._device.type != "cuda":
            return SIZES[-1]
        each = sum(part.row_bytes(_room(positions), self._dtype) for part in self._stack.parts)
        return rows_within(each, torch.cuda.get_device_properties(self._device).total_memory)

    @torch.inference_mode()
    def load(self) -> None:
        """Copy the model's current weights."""
        self._head.load()
        for layer in self._layers if self._rows else ():
            layer.load()

    def decode(
        self,
        prompts: list[list[int]],
        prompt_of: Tensor,
        points: Tensor,
        stop: Tensor,
        temperature: float,
        top_p: float,
    ) -> Decoded:
        """Sample row i after prompt prompt_of[i] with the uniform numbers points[i]; points [B, limit]."""
        count, limit = points.shape
        rows = batch_size(count)
        self._allot(rows, max(map(len, prompts)) + limit + CHECK, (temperature, top_p))
        # Padding rows repeat the first row, and are finished from the start.
        origin = torch.arange(rows, device=self._device)
        origin[count:] = 0
        running = torch.arange(rows, device=self._device) < count
        result = Decoded(
            torch.zeros(count, limit, dtype=torch.long, device=self._device),
            torch.zeros(count, limit, device=self._device),
            torch.full((count,), limit, device=self._device),
        )
        points = F.pad(points.t(), (0, 0, 0, CHECK)).contiguous()
        logits = self._prefill(prompts, prompt_of[origin])
        first = draw(logits, points[0, origin], temperature, top_p)
        self._next[:rows] = first[0]
        tokens, log_probs = (drawn.unsqueeze(0) for drawn in first)
        position = 0
        while True:
            end = min(position + len(tokens), limit)
            real = running.nonzero().squeeze(1)
            result.tokens[origin[real], position:end] = tokens[: end - position, real].t()
            result.log_probs[origin[real], position:end] = log_probs[: end - position, real].t()
            stopped = torch.isin(tokens[: end - position], stop)
            ended = running & stopped.any(0)
            result.lengths[origin[ended]] = position + 1 + stopped[:, ended].int().argmax(0)
            running &= ~ended
            left = int(running.sum())
            position = end
            if left == 0 or position == limit:
                return result
            if batch_size(left) < rows:
                rows = batch_size(left)
                kept = (~running).int().argsort(stable=True)[:rows]
                origin, running = origin[kept], running[kept]
                self._move(kept)
            self._uniform[:, :rows] = points[position : position + CHECK, origin]
            self._replay[rows]()
            tokens, log_probs = self._drawn[:, :rows], self._log_probs[:, :rows]

    def _allot(self, rows: int, positions: int, settings: tuple[float, float]) -> None:
        """Make sure that there are buffers for so many rows and positions, and graphs for all sizes up to that."""
        if rows > self._rows or positions > self._capacity:
            self._forget()
            self._rows = max(rows, self._rows)
            self._capacity = max(_room(positions), self._capacity)
            self._layers: list[Any] = []  # Free the old buffers before new ones are allocated.
            self._layers = [part.make(self._rows, self._capacity, self._dtype) for part in self._stack.parts]
            for layer in self._layers:
                layer.load()
            self._lengths = torch.zeros(self._rows, dtype=torch.long, device=self._device)
            self._next = torch.zeros(self._rows, dtype=torch.long, device=self._device)
            self._drawn = torch.zeros(CHECK, self._rows, dtype=torch.long, device=self._device)
            self._log_probs = torch.zeros(CHECK, self._rows, device=self._device)
            self._uniform = torch.zeros(CHECK, self._rows, device=self._device)
        if settings != self._settings:
            self._forget()
            self._settings = settings
        for size in SIZES:
            if size <= rows and size not in self._replay:
                self._lengths.zero_()
                self._replay[size] = self._captured(size)

    def _forget(self) -> None:
        """Drop all graphs. Later graphs are replayed one at a time, so they share a memory pool for intermediate
        results."""
        self._replay: dict[int, Callable[[], None]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def _prefill(self, prompts: list[list[int]], rows: Tensor) -> Tensor:
        """Prefill: fill every row's caches with its prompt, and return the logits [rows, V] of the first tokens."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._device.type == "cuda"):
            read = read_prompts(self.model, prompts, self._device)
        source = read.place[rows]
        for layer, memories in zip(self._layers, read.memories, strict=True):
            layer.fill(memories, source)
        self._lengths[: len(rows)] = read.lengths[source]
        return self._head(read.hidden)[source]

    def _captured(self, rows: int) -> Callable[[], None]:
        """A CUDA graph of CHECK steps; on other devices the steps themselves."""

        def steps() -> None:
            for number in range(CHECK):
                self._step(rows, number)

        if self._device.type != "cuda":
            return steps
        # Warm-up outside the capture: compiles kernels and loads libraries, which must not happen during capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step(rows, 0)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            steps()
        return graph.replay

    def _step(self, rows: int, number: int) -> None:
        """Append each row's token, and sample the next one with the step's uniform numbers."""
        x = F.embedding(self._next[:rows], self._stack.embeddings).float()
        update = None
        for part, layer in zip(self._stack.parts, self._layers, strict=True):
            dtype = torch.float32 if part.exact else self._dtype
            normed = kernels.add_norm(x, update, part.norm.weight, part.norm.variance_epsilon, dtype)
            update = layer.step(normed, self._lengths[:rows])
        norm = self._stack.norm
        logits = self._head(kernels.add_norm(x, update, norm.weight, norm.variance_epsilon, self._dtype))
        token, log_prob = draw(logits, self._uniform[number, :rows], *self._settings)
        self._next[:rows].copy_(token)
        self._drawn[number, :rows].copy_(token)
        self._log_probs[number, :rows].copy_(log_prob)
        self._lengths[:rows] += 1

    def _move(self, source: Tensor) -> None:
        for layer in self._layers:
            layer.move(source)
        for buffer in (self._next, self._lengths):
            buffer[: len(source)] = buffer[source]


def batch_size(rows: int) -> int:
    """The smallest of SIZES with at least so many rows."""
    return next(size for size in SIZES if size >= rows)


def _room(positions: int) -> int:
    return -(-positions // ROOM) * ROOM
