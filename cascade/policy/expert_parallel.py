"""NeMo Automodel's experts, computed as in engine hf, on one GPU or with expert parallelism.

NeMo's own `torch` dispatcher synchronises with the device several times per layer, sums in float32 over all processes'
tokens and scatters with atomics. Here tokens are gathered and results reduce-scattered in the model's dtype, rows are
sorted instead of masked, sums have a fixed order, and expert parallelism synchronises once per layer.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cascade.policy.moe import collect, experts, spread, weighted_squared_relu

TokenCounts = Callable[[], list[int]]
"""Number of tokens of each process in the current forward pass, by rank."""


def replace_experts(net: nn.Module, counts: TokenCounts) -> int:
    """Replace the forward pass of every supported MoE layer; returns the number of these layers."""
    found = [module for module in net.modules() if _covered(module)]
    for module in found:
        module.forward = _Forward(module, counts)  # type: ignore[method-assign, assignment]
    return len(found)


def _covered(module: nn.Module) -> bool:
    """Whether the module is NeMo's GroupedExperts with dispatcher `torch`, relu² and no biases, as in Nemotron v3."""
    config: Any = getattr(module, "config", None)
    return (
        type(module).__name__.removeprefix("FSDP") == "GroupedExperts"
        and config.expert_activation == "relu2"
        and not config.expert_bias
        and not config.apply_router_weight_after_down
    )


class _Forward:
    def __init__(self, module: Any, counts: TokenCounts):
        self._module = module
        self._counts = counts

    def __call__(self, x: Tensor, token_mask: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        """x [T, D], weights and indices [T, K] → [T, D]. token_mask [T]: all of them, as padding is computed too."""
        up, down = self._module.gate_and_up_projs, self._module.down_projs  # [E, D, I], [E, I, D]
        if not isinstance(up, DTensor):
            up, down = (w.to(x.dtype).transpose(1, 2) for w in (up, down))
            return experts(x, indices, weights.float(), up, down)
        group, mesh = up.device_mesh.get_group(), up.device_mesh
        counts = self._counts()
        return dealt_out(
            x,
            indices,
            weights.float(),
            *(w.to_local().to(x.dtype) for w in (up, down)),
            rank=mesh.get_local_rank(),
            group=group,
            counts=[counts[r] for r in dist.get_process_group_ranks(group)],
        )


def dealt_out(
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    rank: int,
    group: dist.ProcessGroup,
    counts: list[int],
) -> Tensor:
    """x [T, D], chosen and weights [T, K] → [T, D]; up [E, D, I] and down [E, I, D] of this process's experts,
    numbered from rank · E. counts: T of each process of the group."""
    most, copies = max(counts), chosen.shape[1]
    padding = (0, 0, 0, most - len(x))
    every = _Gather.apply(F.pad(x, padding), group)
    every_weight = _Gather.apply(F.pad(weights, padding), group)
    every_chosen = chosen.new_empty(most * len(counts), copies)
    dist.all_gather_into_tensor(every_chosen, F.pad(chosen, padding, value=-1), group=group)
    own = every_chosen - rank * len(up)
    number, order = own.masked_fill((own < 0) | (own >= len(up)), len(up)).flatten().sort(stable=True)
    ends = torch.searchsorted(number, torch.arange(len(up), device=x.device), right=True).int()
    rows = int(ends[-1])  # Synchronises with the device: the shapes below depend on this number.
    if rows == 0:
        return _Scatter.apply(every * 0, group)[: len(x)]
    back = order.argsort().clamp(max=rows)
    order = order[:rows]
    inputs = spread(every, order, back, copies)
    hidden = F.grouped_mm(inputs, up, offs=ends)
    active = weighted_squared_relu(hidden, every_weight.flatten()[order].to(x.dtype))
    out = F.grouped_mm(active, down, offs=ends)
    return _Scatter.apply(collect(out, order, back, copies), group)[: len(x)]


class _Gather(torch.autograd.Function):
    """x [T, …] → [T · processes, …], by rank."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gather(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _scatter(gradients[0], ctx.group), None


class _Scatter(torch.autograd.Function):
    """x [T · processes, …] → [T, …]: this process's part of the sum over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scatter(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _gather(gradients[0], ctx.group), None


def _gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    found = x.new_empty(len(x) * dist.get_world_size(group), *x.shape[1:])
    dist.all_gather_into_tensor(found, x.contiguous(), group=group)
    return found


def _scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    found = x.new_empty(len(x) // dist.get_world_size(group), *x.shape[1:])
    dist.reduce_scatter_tensor(found, x.contiguous(), group=group)
    return found
