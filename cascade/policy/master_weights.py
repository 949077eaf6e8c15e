"""AdamW with float32 master weights for a model in bfloat16.

In bfloat16 an update of 3e-6 would be lost to rounding at a weight of 0.02. If the model is sharded over processes,
each process keeps master weights, gradients and moments of its own shards, as plain tensors: AdamW is elementwise.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from cascade.policy.optimizer import make_optimizer
from cascade.recipe import Optimizer
from cascade.utils import distributed

WRAPPER = "_checkpoint_wrapped_module."
"""What activation checkpointing adds to the names of wrapped modules."""


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, as a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MasterWeights:
    """Float32 weights of the trainable parameters of `net`, by name, and their optimizer.

    `stored`: dtype in the checkpoint of parameters that the model holds in a wider dtype. They too are rounded to it
    for computation, so that the policy that is trained is the one that is saved.
    """

    def __init__(self, net: nn.Module, settings: Optimizer, stored: dict[str, torch.dtype] | None = None):
        self._stored = stored or {}
        self.parameters = {n.replace(WRAPPER, ""): p for n, p in net.named_parameters() if p.requires_grad}
        with torch.no_grad():
            self.weights = {
                n: nn.Parameter(local(p).detach().to(torch.float32, copy=True)) for n, p in self.parameters.items()
            }
        self.optimizer = make_optimizer(list(self.weights.values()), settings)

    def take_gradients(self) -> None:
        """Add the model's gradients to the float32 gradients, and clear the former."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient, weight = local(parameter.grad), self.weights[name]
            weight.grad = gradient.float() if weight.grad is None else weight.grad.add_(gradient)
            parameter.grad = None

    def clip(self, limit: float) -> float:
        """Clip the gradients' norm over all processes to `limit`; returns the norm before clipping."""
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
        """Copy the weights to the model, after a step."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                weight = self.weights[name].detach()
                local(parameter).copy_(weight.to(self._stored[name]) if name in self._stored else weight)

    def state(self) -> dict[str, Tensor]:
        """Weights and moments of this process's shards, on the CPU."""
        found = {f"master.{name}": weight.detach().to("cpu", copy=True) for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                found[f"optimizer.{key}.{name}"] = value.detach().to("cpu", copy=True)
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Raises KeyError or RuntimeError if the state is of a different model or layout."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[f"master.{name}"])
        self.optimizer.state.clear()
        for name, value in state.items():
            if name.startswith("optimizer."):
                key, of = name.removeprefix("optimizer.").split(".", 1)
                self.optimizer.state[self.weights[of]][key] = value.to(self.weights[of].device, copy=True)
        self.write_back()


def _copies(parameter: Tensor) -> int:
    """Number of processes that hold the same shard of a parameter."""
    parts = 1
    if isinstance(parameter, DTensor):
        for dimension, placement in enumerate(parameter.placements):
            if isinstance(placement, Shard):
                parts *= parameter.device_mesh.size(dimension)
    return distributed.size() // parts
