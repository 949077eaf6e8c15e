"""Rollouts, groups, and the groups of a step."""

from collections import Counter
from dataclasses import dataclass, field

from cascade import judges
from cascade.environments import Verdict
from cascade.rollout.transcript import Transcript
from cascade.training import losses
from cascade.training.prompts import Prompt


@dataclass(frozen=True)
class Rollout:
    """One response of the policy, or one episode, with its verdict and reward. `reward` is None where the verifier
    failed, or where the rollout is overlong and masked."""

    prompt: Prompt
    transcript: Transcript
    text: str
    verdict: Verdict | None
    """None: not judged, because it is overlong."""
    reward: float | None


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt."""

    prompt: Prompt
    rollouts: list[Rollout]

    @property
    def rewards(self) -> list[float]:
        return [rollout.reward for rollout in self.rollouts if rollout.reward is not None]

    @property
    def zero_variance(self) -> bool:
        """No two rewards differ, so the advantages are zero."""
        return losses.all_equal(self.rewards)


@dataclass
class Collected:
    """The groups of one step."""

    kept: list[Group] = field(default_factory=list)
    dropped: list[Group] = field(default_factory=list)
    low_best: list[Group] = field(default_factory=list)
    """Those of `dropped` whose best reward is too low (`min_best_reward`), not those of zero variance."""
    refills: int = 0
    """Rounds of sampling after the first."""
    sampling_seconds: float = 0.0
    waiting_seconds: float = 0.0
    """Waiting for verdicts after the last response was sampled."""
    judging: judges.Usage = field(default_factory=judges.Usage)
    """Usage of the judge models."""

    @property
    def groups(self) -> list[Group]:
        return [*self.kept, *self.dropped]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]


def failure_codes(rollouts: list[Rollout]) -> Counter[str]:
    """Failed verdicts, counted by code."""
    return Counter(r.verdict.failure for r in rollouts if r.verdict is not None and r.verdict.failure is not None)
