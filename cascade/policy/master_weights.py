"""AdamW for a model in bfloat16: float32 copies of the weights are what is trained, the model gets them rounded.

In bfloat16 itself an update of 3e-6 would vanish beside a weight of 0.02. Of a model split over processes each keeps
the copies, gradients and moments of its own parts, as plain tensors: AdamW needs no other part.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from cascade.recipe import Optimizer
from cascade.utils import distributed

WRAPPER = "_checkpoint_wrapped_module."
"""What activation checkpointing puts into the names of what it wraps."""


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MasterWeights:
    """Float32 weights of the trainable parameters of `net`, by name, and their optimizer.

    `stored`: parameters that the model holds in a wider type than its checkpoint does. They too compute rounded to
    that type: the policy that is trained is the one that is saved.
    """

    def __init__(self, net: nn.Module, settings: Optimizer, stored: dict[str, torch.dtype] | None = None):
        self._stored = stored or {}
        self.parameters = {n.replace(WRAPPER, ""): p for n, p in net.named_parameters() if p.requires_grad}
        with torch.no_grad():
            self.weights = {
                n: nn.Parameter(local(p).detach().to(torch.float32, copy=True)) for n, p in self.parameters.items()
            }
        decayed = [w for w in self.weights.values() if w.ndim >= 2]
        others = [w for w in self.weights.values() if w.ndim < 2]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)

    def take_gradients(self) -> None:
        """Add the model's gradients to the float32 ones, and forget them there."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient, weight = local(parameter.grad), self.weights[name]
            weight.grad = gradient.float() if weight.grad is None else weight.grad.add_(gradient)
            parameter.grad = None

    def clip(self, limit: float) -> float:
        """Scale the gradients to a norm of at most `limit`, over all processes; returns the norm before."""
        found = [(w.grad, _copies(self.parameters[n])) for n, w in self.weights.items() if w.grad is not None]
        total = torch.zeros((), dtype=torch.float64)
        if found:
            squares = torch.stack([gradient.square().sum(dtype=torch.float64) / copies for gradient, copies in found])
            total = squares.sum().cpu()
        distributed.all_reduce_sum(total)
        norm = math.sqrt(total.item()) if math.isfinite(total.item()) else math.nan
        if norm > limit:
            for gradient, _ in found:
                gradient.mul_(limit / (norm + 1e-6))
        return norm

    def write_back(self) -> None:
        """Give the model the weights after a step."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                weight = self.weights[name].detach()
                local(parameter).copy_(weight.to(self._stored[name]) if name in self._stored else weight)

    def state(self) -> dict[str, Tensor]:
        """Weights and moments of this process's parts, on the CPU."""
        found = {f"master.{name}": weight.detach().cpu().clone() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            for key, value in self.adamw.state.get(weight, {}).items():
                found[f"optimizer.{key}.{name}"] = value.detach().cpu().clone()
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Raises KeyError or RuntimeError where the state is of another model or layout."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[f"master.{name}"])
        self.adamw.state.clear()
        for name, value in state.items():
            if name.startswith("optimizer."):
                key, of = name.removeprefix("optimizer.").split(".", 1)
                self.adamw.state[self.weights[of]][key] = value.to(self.weights[of].device, copy=True)
        self.write_back()


def _copies(parameter: Tensor) -> int:
    """How many processes hold the same part of a parameter."""
    parts = 1
    if isinstance(parameter, DTensor):
        for dimension, placement in enumerate(parameter.placements):
            if isinstance(placement, Shard):
                parts *= parameter.device_mesh.size(dimension)
    return distributed.size() // parts
