"""The rollouts that a step trains on, as flat tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.policy.base import Sequence
from cascade.training.groups import Group, Rollout


@dataclass(frozen=True)
class Batch:
    """R rollouts with N trained tokens in all; tokens are in the order of the rollouts."""

    rollouts: list[Rollout]
    groups: Tensor
    """[R] index of each rollout's group."""
    sequences: list[Sequence]
    sampler_log_probs: Tensor
    """[N] log π_inf."""
    owner: Tensor
    """[N] index of each token's rollout."""

    @classmethod
    def of(cls, groups: list[Group], *, rewarded: bool) -> "Batch | None":
        """The rollouts of the groups; where `rewarded`, only those with a reward. None when there are none."""
        numbered = [(i, r) for i, g in enumerate(groups) for r in g.rollouts if not rewarded or r.reward is not None]
        if not numbered:
            return None
        rollouts = [rollout for _, rollout in numbered]
        lengths = torch.tensor([rollout.transcript.length for rollout in rollouts])
        return cls(
            rollouts,
            torch.tensor([group for group, _ in numbered]),
            [Sequence(r.transcript.token_ids, r.transcript.trained) for r in rollouts],
            torch.tensor([x for rollout in rollouts for x in rollout.transcript.log_probs], dtype=torch.float32),
            torch.repeat_interleave(torch.arange(len(rollouts)), lengths),
        )

    @property
    def domains(self) -> list[str]:
        """Of each rollout."""
        return [rollout.prompt.domain for rollout in self.rollouts]

    @property
    def tokens(self) -> int:
        """N."""
        return len(self.owner)
