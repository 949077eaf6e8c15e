"""Gradients of parts of a batch: how much of the squared gradient norm each has, without a further backward pass."""

import torch
from torch import Tensor, nn


class GradientParts:
    """Adds up the gradients of a step whose micro-batches are of one part each, part after part.

    Parts 2d and 2d + 1 are two halves of the same kind of sequences. The product of their gradients estimates without
    bias what the square of one of them would overestimate by its variance (arXiv 2510.19178).
    """

    def __init__(self, parameters: list[nn.Parameter]):
        self._parameters = parameters
        self._total: dict[nn.Parameter, Tensor] = {}
        self._first: dict[nn.Parameter, Tensor] = {}
        self._current: dict[nn.Parameter, Tensor] = {}
        self._part = -1
        self._first_part = -1
        self.products: dict[int, float] = {}
        """d → inner product of the gradients of parts 2d and 2d + 1, where both occur."""

    def add(self, part: int) -> None:
        """Take the parameters' gradients, those of a micro-batch of this part."""
        if part != self._part:
            self._end_part()
            self._part = part
        for parameter in self._parameters:
            if parameter.grad is not None:
                _add(self._current, parameter, parameter.grad)
                parameter.grad = None

    def finish(self) -> None:
        """Give the parameters the sum of all parts as their gradients."""
        self._end_part()
        for parameter, gradient in self._total.items():
            parameter.grad = gradient

    def _end_part(self) -> None:
        if self._part < 0:
            return
        if self._part % 2 and self._first_part == self._part - 1:
            dots = [
                (gradient * self._first[parameter]).sum(dtype=torch.float64)
                for parameter, gradient in self._current.items()
                if parameter in self._first
            ]
            self.products[self._part // 2] = float(torch.stack(dots).sum())
        # Kept for the other half, which may be the next part.
        self._first = {} if self._part % 2 else {p: gradient.clone() for p, gradient in self._current.items()}
        self._first_part = self._part
        for parameter, gradient in self._current.items():
            _add(self._total, parameter, gradient)
        self._current = {}


def _add(sums: dict[nn.Parameter, Tensor], parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter in sums:
        sums[parameter].add_(gradient)
    else:
        sums[parameter] = gradient
