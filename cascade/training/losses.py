"""Advantages, importance weights and losses: pure functions on flat tensors, each the paper's equation.

Shapes: R rollouts, N trained tokens of the whole step, n ≤ N tokens of one micro-batch. Log-probabilities are
in nats. A loss of a micro-batch is its part of the loss of the step (divisors are totals of the step), so the
parts add up. Equations: Nemotron-Cascade 2 (arXiv 2603.19220), sections on Cascade RL and on MOPD.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDING = 1e-9
"""Relative difference up to which two rewards are the same one, computed in another order: 0.1 + 0.2 is 0.3."""


def all_equal(rewards: Sequence[float]) -> bool:
    """Whether no two rewards differ by more than rounding. None are equal."""
    lowest, highest = min(rewards, default=0.0), max(rewards, default=0.0)
    return highest - lowest <= ROUNDING * max(abs(lowest), abs(highest))


def zero_variance(rewards: Tensor, groups: Tensor) -> Tensor:
    """[R] rewards, [R] group ids → bool [R]: the rewards of the rollout's group differ by no more than rounding.

    By the largest difference, not by the standard deviation: dividing by what rounding left would turn it into
    advantages as large as any.
    """
    rounding = max(ROUNDING, 8 * torch.finfo(rewards.dtype).eps)
    ids, inverse = torch.unique(groups, return_inverse=True)
    highest = rewards.new_empty(len(ids)).scatter_reduce_(0, inverse, rewards, "amax", include_self=False)
    lowest = rewards.new_empty(len(ids)).scatter_reduce_(0, inverse, rewards, "amin", include_self=False)
    return (highest - lowest <= rounding * torch.maximum(highest.abs(), lowest.abs()))[inverse]


def group_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """[R], [R] → [R]: Â = (r - mean) / std over the group (GRPO).

    std is the population's (divided by the group size): the group is all there is to normalise by. A
    zero-variance group has no advantage: exactly 0.
    """
    ids, inverse = torch.unique(groups, return_inverse=True)
    centred = rewards - segment_mean(rewards, inverse, len(ids))[inverse]
    std = segment_mean(centred.square(), inverse, len(ids)).sqrt()[inverse]
    return torch.where(zero_variance(rewards, groups), torch.zeros_like(rewards), centred / std)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, total_tokens: int) -> Tensor:
    """[n], [n] → scalar: -1/Σ|o_i| · Σ Â log π, the strictly on-policy GRPO objective (importance ratio 1).

    Token-level: the divisor is the number of trained tokens of every rollout of the step, so each token weighs
    the same, whatever the length of its response.
    """
    return -(advantages.detach() * log_probs).sum() / total_tokens


def importance_weights(train_log_probs: Tensor, sampler_log_probs: Tensor, low: float, high: float) -> Tensor:
    """[n], [n] → [n]: w = sg[r] · 1[low ≤ r ≤ high] with r = π_train / π_inf. Outside, the token is dropped."""
    ratio = (train_log_probs.detach() - sampler_log_probs).exp()
    return torch.where((ratio >= low) & (ratio <= high), ratio, torch.zeros_like(ratio))


def distillation_loss(
    log_probs: Tensor,
    teacher_log_probs: Tensor,
    weights: Tensor,
    response_tokens: Tensor,
    responses: int,
) -> Tensor:
    """MOPD: -E_y[ 1/|V(y)| Σ_{t∈V(y)} w_t · sg[a_t] · log π_train ], a_t = log π_teacher - log π_train.

    `weights` [n] from `importance_weights`. `response_tokens` [n] is |V(y)| of the response that each token
    belongs to, dropped tokens included. `responses` is the number of responses of the step.
    """
    advantages = teacher_log_probs - log_probs.detach()
    return -(weights * advantages * log_probs / response_tokens).sum() / responses


def kl_to_start(log_probs: Tensor, start_log_probs: Tensor) -> Tensor:
    """[n], [n] → [n]: per-token KL(π ‖ π_start) on sampled tokens, to be averaged over tokens.

    The value is the k3 estimator, e^δ - 1 - δ with δ = log π_start - log π: never negative, low variance,
    unbiased for samples of π. Its gradient is not taken by differentiating that value: this would leave out
    that the samples depend on π, and descend KL(π_start ‖ π) instead. With the score-function term,
    E[k3 ∇log π + ∇k3] = E[-δ ∇log π]; that is the gradient of this function.
    """
    delta = start_log_probs - log_probs.detach()
    value = delta.exp() - 1 - delta
    return value - delta * (log_probs - log_probs.detach())


def reverse_kl(train_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """[N], [N] → [N]: log π_train - log π_teacher on the sampled token; its mean estimates KL(π_train ‖ π_teacher)."""
    return train_log_probs - teacher_log_probs


def mismatch_kl(train_log_probs: Tensor, sampler_log_probs: Tensor) -> Tensor:
    """[N], [N] → [N]: r - 1 - log r with r = π_train / π_inf; its mean estimates KL(π_inf ‖ π_train), and is 0 only
    where trainer and sampler agree."""
    log_ratio = train_log_probs - sampler_log_probs
    return log_ratio.exp() - 1 - log_ratio


def segment_mean(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """[N], [N] ids below `count` → [count]: mean of each segment; NaN for one without values."""
    sums = values.new_zeros(count).index_add_(0, segments, values)
    return sums / torch.bincount(segments, minlength=count)
