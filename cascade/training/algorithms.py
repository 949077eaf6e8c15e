"""The advantages of a step: the only thing in which RL and distillation differ.

An advantage source turns a batch into a signal: the objective of the step (what `Policy.step` calls with the
log-probabilities of a micro-batch), and the metrics of the step that belong to it.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from cascade.policy.base import Policy
from cascade.recipe import Distillation
from cascade.training import losses
from cascade.training.batch import Batch
from cascade.training.metrics import Metrics, token_means, token_spreads
from cascade.training.teacher_scoring import Teachers


class Signal(Protocol):
    def __call__(self, log_probs: Tensor, index: Tensor) -> Tensor:
        """These tokens' part of the step's loss (see `Objective`)."""
        ...

    def metrics(self, log_probs: Tensor) -> Metrics:
        """From log π_train [N] of the whole step."""
        ...


AdvantageSource = Callable[[Batch], Signal]


class GRPO:
    """Group relative policy optimization: rewards against the group's mean, and optionally a KL term to the node's
    initial policy."""

    def __init__(self, batch: Batch, kl: float = 0.0, start: Policy | None = None):
        rewards = torch.tensor([rollout.reward for rollout in batch.rollouts], dtype=torch.float64)
        per_rollout = losses.group_advantages(rewards, batch.groups)
        self._batch = batch
        self._advantages = per_rollout.float()[batch.owner]
        self._kl = kl
        self._start = None if start is None else start.score(batch.sequences).log_probs

    def __call__(self, log_probs: Tensor, index: Tensor) -> Tensor:
        advantages = _pick(self._advantages, index, log_probs)
        loss = losses.policy_gradient_loss(log_probs, advantages, self._batch.tokens)
        if self._start is not None:
            kl = losses.kl_to_start(log_probs, _pick(self._start, index, log_probs))
            loss = loss + self._kl * kl.sum() / self._batch.tokens
        return loss

    def metrics(self, log_probs: Tensor) -> Metrics:
        if self._start is None:
            return {}
        return token_means("train/kl_to_start", losses.kl_to_start(log_probs, self._start), self._batch)


class MOPD:
    """Multi-domain on-policy distillation: log π_teacher - log π_train on the sampled token, with truncated importance
    weights."""

    def __init__(self, batch: Batch, teachers: Teachers, node: Distillation):
        self._batch = batch
        self._node = node
        self._teacher = teachers.score(batch)
        self._response_tokens = torch.bincount(batch.owner)[batch.owner]

    def __call__(self, log_probs: Tensor, index: Tensor) -> Tensor:
        weights = losses.importance_weights(
            log_probs, _pick(self._batch.sampler_log_probs, index, log_probs), *self._node.importance
        )
        return losses.distillation_loss(
            log_probs,
            _pick(self._teacher, index, log_probs),
            weights,
            _pick(self._response_tokens, index, log_probs),
            len(self._batch.rollouts),
        )

    def metrics(self, log_probs: Tensor) -> Metrics:
        weights = losses.importance_weights(log_probs, self._batch.sampler_log_probs, *self._node.importance)
        return {
            **token_means("train/reverse_kl", losses.reverse_kl(log_probs, self._teacher), self._batch),
            **token_spreads("train/log_ratio_spread", self._teacher - log_probs, self._batch),
            **token_means("train/masked_tokens", (weights == 0).float(), self._batch),
        }


def _pick(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """The step's `values` [N] at the tokens `index` [n], on the device of `like`."""
    return values[index.to(values.device)].to(like.device)
