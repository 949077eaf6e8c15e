"""Decoding on CUDA: CHECK steps, each with its draw of the next token, captured once and then replayed.

A step of a hundred small kernels costs its launches many times over, a replayed one little more than its memory
traffic. A graph knows fixed addresses and shapes only, so every cache lies in a buffer of its own and there is one
graph for each size of batch in SIZES: a batch is filled up to the next of them, and goes down to a smaller one when
enough of its rows have finished, which is looked at between replays.
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
"""Steps of a replay. What a row draws beyond its end, or beyond the limit, is dropped."""
ROOM = 256
"""Positions are allotted in multiples of this."""
SHARE = 0.2
"""Of the device's memory: what the caches may take, as the trainer needs the rest."""


@dataclass(frozen=True)
class Decoded:
    """What was drawn for each row [B, limit], and how much of it counts, its stop token included [B]."""

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor


class GraphDecoder:
    """Decodes with a copy of a model's weights in `dtype`; `load` takes over changed ones.

    On a device other than CUDA the same steps run without capture.
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
        """How many rows of so many positions the caches may hold: a size of batch, at least the smallest."""
        if self._device.type != "cuda":
            return SIZES[-1]
        share = SHARE * torch.cuda.get_device_properties(self._device).total_memory
        each = sum(part.row_bytes(_room(positions), self._dtype) for part in self._stack.parts)
        return max((size for size in SIZES if size * each <= share), default=SIZES[0])

    @torch.inference_mode()
    def load(self) -> None:
        """Take over the model's weights as they are now."""
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
        """Row i continues prompt prompt_of[i], drawing by points[i]; points [B, limit] uniform numbers."""
        count, limit = points.shape
        rows = batch_size(count)
        self._allot(rows, max(map(len, prompts)) + limit + CHECK, (temperature, top_p))
        # Rows beyond the count repeat the first, and count as finished.
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
        """See that there are buffers for so many rows and positions, and a graph for every size up to that."""
        if rows > self._rows or positions > self._capacity:
            self._forget()
            self._rows = max(rows, self._rows)
            self._capacity = max(_room(positions), self._capacity)
            self._layers: list[Any] = []  # Those there are go before others come.
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
        """Drop all graphs. Those that follow are replayed one at a time, so they share the memory for what a step
        computes in between."""
        self._replay: dict[int, Callable[[], None]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def _prefill(self, prompts: list[list[int]], rows: Tensor) -> Tensor:
        """Logits [rows, V] of the first tokens; every row's caches hold its prompt."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._device.type == "cuda"):
            read = read_prompts(self.model, prompts, self._device)
        source = read.place[rows]
        for layer, memories in zip(self._layers, read.memories, strict=True):
            layer.fill(memories, source)
        self._lengths[: len(rows)] = read.lengths[source]
        return self._head(read.hidden)[source]

    def _captured(self, rows: int) -> Callable[[], None]:
        """A CUDA graph of CHECK steps; elsewhere the steps themselves."""

        def steps() -> None:
            for number in range(CHECK):
                self._step(rows, number)

        if self._device.type != "cuda":
            return steps
        # Once outside the capture: kernels are compiled and libraries loaded where that may take memory and time.
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
        """Append each row's token, and draw the next by the step's uniform numbers."""
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
    """The smallest of SIZES that holds so many rows."""
    return next(size for size in SIZES if size >= rows)


def _room(positions: int) -> int:
    return -(-positions // ROOM) * ROOM
