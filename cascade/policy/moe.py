"""Routed experts, y = Σ_k w_k · down_k(f(up_k x)), over tokens sorted by expert. f is relu² in NemotronH; in other
models up has two parts, and f(gate, x) = silu(gate) · x."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.policy.elementwise import swiglu


def route(
    x: Tensor, weight: Tensor, bias: Tensor, top_k: int, groups: int, top_groups: int, normalise: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Sigmoid router whose correction bias affects only the choice of experts (arXiv 2408.15664; DeepSeek-V3).

    x [T, D] → chosen experts [T, K] and their weights [T, K], in float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        scores = F.linear(x.to(weight.dtype), weight).sigmoid()
    with torch.no_grad():
        choice = scores + bias
        if groups > top_groups:
            by_group = choice.view(len(x), groups, -1)
            best = by_group.topk(2, dim=-1)[0].sum(-1).topk(top_groups, dim=-1, sorted=False)[1]
            dropped = torch.ones_like(by_group[..., 0], dtype=torch.bool).scatter_(1, best, False)
            choice = by_group.masked_fill(dropped.unsqueeze(-1), -torch.inf).view_as(choice)
        chosen = choice.topk(top_k, dim=-1, sorted=False)[1]
    weights = scores.gather(1, chosen)
    if normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return chosen, weights * scale


def softmax_route(x: Tensor, weight: Tensor, top_k: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """Softmax router: x [T, D] → chosen experts [T, K] and their probabilities [T, K], in float32 at least;
    `normalise`: scaled to sum to 1."""
    with torch.autocast(x.device.type, enabled=False):
        scores = F.linear(x.to(weight.dtype), weight).to(x.dtype).softmax(-1)
    weights, chosen = scores.topk(top_k, dim=-1)
    return chosen, weights / weights.sum(-1, keepdim=True) if normalise else weights


def experts(x: Tensor, chosen: Tensor, weights: Tensor, up: Tensor, down: Tensor, gated: bool = False) -> Tensor:
    """x [T, D], chosen and weights [T, K], up [E, I, D] or, gated, [E, 2 I, D], down [E, D, I] → [T, D].

    Expert number E means none: on the CPU such a token costs nothing, and its result is zero.
    """
    if x.device.type == "cpu":
        return _SortedExperts.apply(x, chosen, weights, up, down, gated)
    # bincount() would synchronise with the device; searching the sorted numbers does not.
    number, order = chosen.clamp(max=len(up) - 1).flatten().sort(stable=True)
    ends = torch.searchsorted(number, torch.arange(len(up), device=x.device), right=True).int()
    back = order.argsort()
    copies = chosen.shape[1]
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    inputs = spread(x.to(dtype), order, back, copies)
    hidden = F.grouped_mm(inputs, up.to(dtype).transpose(1, 2), offs=ends)
    # Weights are applied before the last product, whose half-precision results can then be summed directly.
    weight = weights.flatten()[order].to(dtype)
    if gated:
        gate, value = hidden.chunk(2, -1)
        active = swiglu(gate, value, weight)
    else:
        active = weighted_squared_relu(hidden, weight)
    out = F.grouped_mm(active, down.to(dtype).transpose(1, 2), offs=ends)
    return collect(out, order, back, copies).to(x.dtype)


def weighted_squared_relu(hidden: Tensor, weight: Tensor) -> Tensor:
    """relu(hidden)² multiplied by the row's weight. hidden [n, I], weight [n]."""
    return _WeightedSquaredRelu.apply(hidden, weight)


def tokens_per_expert(chosen: Tensor, count: int) -> Tensor:
    """[count]: how often each expert was chosen; numbers of `count` and above are ignored."""
    if chosen.device.type == "cpu":
        return torch.bincount(chosen.flatten(), minlength=count)[:count]
    return (chosen.flatten().unsqueeze(1) == torch.arange(count, device=chosen.device)).sum(0)


def spread(x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
    """x [T, D] → [n, D]: row i is of token order[i] // copies. back [T · copies]: the row of each copy, n for none.

    The gradient is `collect`, and the reverse: gathers and sums, where autograd would accumulate row by row.
    """
    return _Spread.apply(x, order, back, copies)


def collect(x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
    """x [n, D] → [T, D], the sum of each token's copies."""
    return _Collect.apply(x, order, back, copies)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(order, back)
        ctx.copies = copies
        return x[order // copies]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        order, back = ctx.saved_tensors
        return collect(gradients[0], order, back, ctx.copies), None, None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(order, back)
        ctx.copies = copies
        if x.is_cuda:
            from cascade.policy.triton_elementwise import sum_of_rows

            return sum_of_rows(x, back, copies)
        return F.pad(x, (0, 0, 0, 1))[back].unflatten(0, (-1, copies)).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        order, back = ctx.saved_tensors
        return spread(gradients[0], order, back, ctx.copies), None, None, None


class _WeightedSquaredRelu(torch.autograd.Function):
    """relu(hidden)² multiplied by the row's weight. hidden [n, I], weight [n]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        active = hidden.relu()
        return active.mul_(active).mul_(weight.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        active = hidden.relu()
        by_square = gradients[0] * active
        by_weight = (by_square.unsqueeze(1) @ active.unsqueeze(2)).flatten()
        return by_square.mul_(weight.unsqueeze(1) * 2), by_weight


class _SortedExperts(torch.autograd.Function):
    """One matrix product per expert, written directly into shared buffers: the fastest way measured on CPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Tensor, weights: Tensor, up: Tensor, down: Tensor, gated: bool) -> Tensor:
        count = len(up)
        order = chosen.flatten().argsort(stable=True)
        sizes = torch.bincount(chosen.flatten(), minlength=count)[:count].tolist()
        start = sum(sizes)
        # The row of each copy; copies that no expert computes share a last one, which is zero.
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        back.clamp_(max=start)
        order = order[:start]
        token = order // chosen.shape[1]
        inputs = x.index_select(0, token)
        hidden = x.new_empty(start, up.shape[1])
        _by_expert(sizes, inputs, up.transpose(1, 2), hidden)
        if gated:
            gate, value = hidden.chunk(2, -1)
            active = F.silu(gate).mul_(value)
        else:
            hidden.relu_()
            active = hidden * hidden
        rows = x.new_empty(start + 1, x.shape[1])
        rows[start] = 0
        out = rows[:start]
        _by_expert(sizes, active, down.transpose(1, 2), out)
        weight = weights.flatten()[order].to(x.dtype)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(inputs, hidden, active, out, weight, weights, up, down, order, token, back)
            ctx.sizes, ctx.gated = sizes, gated
            weighted = torch.empty_like(rows)
            weighted[start] = 0
            torch.mul(out, weight.unsqueeze(-1), out=weighted[:start])
        else:
            out *= weight.unsqueeze(-1)
            weighted = rows
        return _sum_of_copies(weighted, back, chosen.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, hidden, active, out, weight, weights, up, down, order, token, back = ctx.saved_tensors
        rows = gradients[0].new_empty(len(order) + 1, gradients[0].shape[1])
        rows[len(order)] = 0
        gradient = rows[: len(order)]
        torch.index_select(gradients[0], 0, token, out=gradient)
        by_weight = torch.zeros_like(weights).flatten()
        by_weight[order] = (gradient * out).sum(-1).to(weights.dtype)
        gradient *= weight.unsqueeze(-1)
        by_active = torch.empty_like(active)
        by_down, by_up = torch.empty_like(down), torch.empty_like(up)
        _by_expert(ctx.sizes, gradient, down, by_active)
        _weights_by_expert(ctx.sizes, gradient, active, by_down)
        if ctx.gated:
            gate, value = hidden.chunk(2, -1)
            sigmoid = gate.sigmoid()
            silu = gate * sigmoid
            slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
            by_hidden = torch.cat([slope.mul_(value).mul_(by_active), silu.mul_(by_active)], 1)
        else:
            by_hidden = by_active.mul_(hidden).mul_(2)
        _by_expert(ctx.sizes, by_hidden, up, gradient)
        _weights_by_expert(ctx.sizes, by_hidden, inputs, by_up)
        by_input = _sum_of_copies(rows, back, weights.shape[1])
        return by_input, None, by_weight.view_as(weights), by_up, by_down, None


def _by_expert(sizes: list[int], rows: Tensor, matrices: Tensor, out: Tensor) -> None:
    """out [n, J] = rows [n, I] times the matrix [I, J] of each row's expert; expert e has the next sizes[e] rows."""
    # Views are made by one call for all experts: for a few rows an expert they would take as long as the products.
    for size, part, matrix, to in zip(sizes, rows.split(sizes), matrices.unbind(), out.split(sizes), strict=True):
        if size:
            torch.mm(part, matrix, out=to)


def _weights_by_expert(sizes: list[int], left: Tensor, right: Tensor, out: Tensor) -> None:
    """out [E, I, J] = leftᵀ right over each expert's rows, left [n, I], right [n, J]; zero for one without rows."""
    for size, a, b, to in zip(sizes, left.split(sizes), right.split(sizes), out.unbind(), strict=True):
        if size:
            torch.mm(a.t(), b, out=to)
        else:
            to.zero_()


def _sum_of_copies(rows: Tensor, back: Tensor, copies: int) -> Tensor:
    """rows [n, D], back [T · copies]: the row of each copy → [T, D], each token's sum."""
    return rows.index_select(0, back).unflatten(0, (-1, copies)).sum(1)
