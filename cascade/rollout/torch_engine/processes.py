"""The torch engine on several CPU cores: conversations are divided among processes of one thread each.

The operations of a small model's decoding step are too short to divide among threads, which wait for each other in
every one. The processes have one copy of the weights, in shared memory. Which of them samples a conversation depends on
the requests alone, never on time.
"""

import io
import mmap
import os
import pickle
from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cascade.policy.base import Policy
from cascade.rollout.base import OnFinish, Sample, SampleRequest
from cascade.rollout.torch_engine.decoder import Prefix
from cascade.rollout.torch_engine.sampler import Drawing, Finish, TurnSampler, in_turns, stop_tokens
from cascade.utils.worker_process import WorkerProcess, messages, receive_file, reply

ALIGNMENT = 64
"""Bytes at which a tensor starts."""


class ProcessSampler:
    """Samples from a copy of a policy's weights in `count` processes; call `refresh` after they change.

    `stop`: tokens that end a response; by default the tokenizer's and the generation config's. A call of `sample` that
    raises ends the processes; the next one starts others.
    """

    def __init__(self, policy: Policy, count: int, stop: Many[int] | None = None):
        self._count = count
        self._given_stop = stop
        self._workers: dict[Connection, WorkerProcess] = {}
        self._weights: SharedWeights | None = None
        self.refresh(policy)

    def refresh(self, policy: Policy) -> None:
        self._policy = policy
        started = not self._workers
        if started:
            for _ in range(self._count):
                worker = WorkerProcess("cascade.rollout.torch_engine.processes:serve")
                self._workers[worker.pipe] = worker
        replaced = self._weights is None or self._weights.model is not policy.model
        if self._weights is None or replaced:
            self._weights = SharedWeights(policy.model)
        self._weights.update()
        stop = stop_tokens(policy.model, policy.tokenizer) if self._given_stop is None else self._given_stop
        for worker in self._workers.values():
            if started or replaced:
                worker.send(_Load(self._weights.pickled, self._weights.places))
                worker.send_file(self._weights.file)
            worker.send(_Refresh(list(stop)))

    def sample(
        self,
        requests: list[SampleRequest],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_finish: OnFinish | None = None,
    ) -> list[Sample]:
        if not self._workers:
            self.refresh(self._policy)
        drawing = Drawing(max_new_tokens, temperature, top_p)
        pipes = list(self._workers)
        pipe_of = [pipes[number] for number in divide(requests, self._count)]
        first = True

        def sample_turn(turn: dict[int, SampleRequest], finish: Finish) -> None:
            nonlocal first
            shares: dict[Connection, dict[int, SampleRequest]] = {}
            for conversation, request in turn.items():
                shares.setdefault(pipe_of[conversation], {})[conversation] = request
            for pipe, share in shares.items():
                self._workers[pipe].send(_Turn(share, drawing, first, goes_on=on_finish is not None))
            first = False
            left = {pipe: len(share) for pipe, share in shares.items()}
            while left:
                for ready in wait(list(left)):
                    assert isinstance(ready, Connection)
                    finish(*self._workers[ready].receive("sampling"))
                    left[ready] -= 1
                    if not left[ready]:
                        del left[ready]

        try:
            return in_turns(requests, on_finish, sample_turn)
        except BaseException:
            self._kill()  # They go on sampling.
            raise

    def close(self) -> None:
        """End the processes and free their weights."""
        self._kill()
        self._weights = None

    def _kill(self) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()


def divide(requests: list[SampleRequest], count: int) -> list[int]:
    """For each request a number below `count`, each number equally often. Where that allows it, requests with the same
    prompt have the same number, so that the prompt is read once. Prompts are dealt in turns, because those of one
    domain, whose responses are of similar length, may lie beside each other."""
    numbers: dict[tuple[int, ...], int] = {}
    prompts = [numbers.setdefault(tuple(request.prompt), len(numbers)) for request in requests]
    order = sorted(range(len(requests)), key=lambda n: (prompts[n] % count, prompts[n]))
    found = [0] * len(requests)
    for place, n in enumerate(order):
        found[n] = place * count // len(requests)
    return found


@dataclass(frozen=True)
class Place:
    """Where a tensor is in shared memory."""

    start: int
    """In bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    parameter: bool

    def view(self, memory: Tensor) -> Tensor:
        size = self.dtype.itemsize * torch.Size(self.shape).numel()
        return memory[self.start : self.start + size].view(self.dtype).view(self.shape)


class SharedWeights:
    """Copies of a model's parameters and buffers in shared memory, and the model without them, pickled."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        tensors = self._tensors()
        self.places, size = [], 0
        for tensor in tensors:
            self.places.append(Place(size, tensor.dtype, tuple(tensor.shape), isinstance(tensor, nn.Parameter)))
            size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.file = os.memfd_create("weights")
        os.ftruncate(self.file, size)
        self._views = _views(self.file, self.places)
        stream = io.BytesIO()
        _Pickler(stream, tensors).dump(model)
        self.pickled = stream.getvalue()

    def __del__(self) -> None:
        os.close(self.file)

    def update(self) -> None:
        """Copy the model's current values."""
        for view, tensor in zip(self._views, self._tensors(), strict=True):
            view.copy_(tensor.detach())

    def _tensors(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]


def _views(file: int, places: Iterable[Place]) -> list[Tensor]:
    memory = torch.frombuffer(mmap.mmap(file, 0), dtype=torch.uint8)
    return [place.view(memory) for place in places]


class _Pickler(pickle.Pickler):
    """Writes the numbers of the tensors in place of them."""

    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]):
        super().__init__(stream)
        self._numbers = {id(tensor): number for number, tensor in enumerate(tensors)}

    def persistent_id(self, value: Any) -> int | None:
        return self._numbers.get(id(value)) if isinstance(value, Tensor) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]):
        super().__init__(stream)
        self._tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self._tensors[number]


@dataclass(frozen=True)
class _Load:
    """The descriptor of the memory follows it."""

    pickled: bytes
    places: list[Place]

    def model(self, file: int) -> PreTrainedModel:
        tensors = [
            nn.Parameter(view, requires_grad=False) if place.parameter else view
            for place, view in zip(self.places, _views(file, self.places), strict=True)
        ]
        model: PreTrainedModel = _Unpickler(io.BytesIO(self.pickled), tensors).load()
        return model


@dataclass(frozen=True)
class _Refresh:
    stop: list[int]


@dataclass(frozen=True)
class _Turn:
    requests: dict[int, SampleRequest]
    drawing: Drawing
    first: bool
    goes_on: bool
    """Whether conversations may have another turn."""


def serve(parent: Connection) -> None:
    """A worker: sends the number and the response of each conversation of a turn as soon as it ends."""
    torch.set_num_threads(1)
    sampler = TurnSampler()
    read: dict[int, Prefix] = {}
    for message in messages(parent):
        match message:
            case _Load():
                file = receive_file(parent)
                model = message.model(file)
                os.close(file)
            case _Refresh():
                sampler.load(model, model.device, message.stop)
            case _Turn():

                def finish(conversation: int, sample: Sample, goes_on: bool = message.goes_on) -> bool:
                    reply(parent, (conversation, sample))
                    return goes_on

                if message.first:
                    read = {}
                read = sampler.sample_turn(message.requests, message.drawing, finish, read)
