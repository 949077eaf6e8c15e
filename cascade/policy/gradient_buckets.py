"""All-reduce of gradients in buckets, overlapped with a step's last backward pass, as in DDP (arXiv 2006.15704).

Buckets are filled and sent in a fixed order, from the last parameter to the first, whatever the order in which
gradients are ready: so the collectives of all processes match, and sums are reproducible to the bit.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cascade.utils import distributed

BUCKET_BYTES = 32 * 2**20
"""Bucket size: large enough to use the links' bandwidth, small enough that most are sent before the backward pass ends.
"""


class GradientBuckets:
    """For parameters that are replicated on each process. Call `last_pass` before the last backward pass of a step, and
    `finish` after it; a process without a backward pass calls only `finish`."""

    def __init__(self, parameters: list[nn.Parameter]):
        self._buckets = _buckets(parameters)
        self._of = {parameter: number for number, bucket in enumerate(self._buckets) for parameter in bucket}
        self._sent: list[tuple[Tensor, dist.Work]] = []
        self._missing: list[int] | None = None
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def last_pass(self) -> None:
        """Gradients that are accumulated after this call are complete, and can be sent."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self) -> None:
        """Set every gradient to the sum. A parameter without a gradient on any process keeps none."""
        self._missing = None
        while len(self._sent) < len(self._buckets):
            self._send()
        parameters = list(self._of)
        anywhere = [
            any(have) for have in zip(*distributed.gather([p.grad is not None for p in parameters]), strict=True)
        ]
        used = {p for p, found in zip(parameters, anywhere, strict=True) if found}
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            for parameter, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = gradient.view_as(parameter) if parameter in used else None
        self._sent = []

    def _arrived(self, parameter: nn.Parameter) -> None:
        if self._missing is None:
            return
        self._missing[self._of[parameter]] -= 1
        while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((flat, work))


def _buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in the usual order in which their gradients are ready."""
    found: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if size > room:
            found.append([])
            room = BUCKET_BYTES
        found[-1].append(parameter)
        room -= size
    return found
