"""Which rollouts and groups are trained on: dynamic filtering (zero-variance groups), the overlong rule, the best
reward."""

from dataclasses import dataclass
from typing import Literal

from cascade.environments import Verdict
from cascade.recipe import OnPolicyNode, RLNode
from cascade.training.groups import Group


@dataclass(frozen=True)
class RolloutFilter:
    """Which rollouts are trained on. Distillation takes all: its advantage comes from the teacher, not from rewards."""

    dynamic_filtering: bool = False
    max_refills: int = 0
    overlong: Literal["zero", "mask", "keep"] = "keep"
    min_best_reward: float = 0.0

    @classmethod
    def of(cls, node: OnPolicyNode) -> "RolloutFilter":
        if isinstance(node, RLNode):
            refills = node.max_refills if node.dynamic_filtering else 0
            return cls(node.dynamic_filtering, refills, node.overlong, node.min_best_reward)
        return cls()

    @property
    def judges_overlong(self) -> bool:
        """Whether a response that did not finish is judged as it is."""
        return self.overlong == "keep"

    def reward(self, verdict: Verdict | None) -> float | None:
        """Of a rollout; `verdict` is None where it is overlong and was not judged. None: no part in the loss."""
        if verdict is None:
            return 0.0 if self.overlong == "zero" else None
        return verdict.reward

    def drop_reason(self, group: Group) -> Literal["zero_variance", "low_best"] | None:
        """None: the group is kept."""
        if self.dynamic_filtering and group.zero_variance:
            return "zero_variance"
        if self.min_best_reward > 0 and max(group.rewards, default=0.0) <= self.min_best_reward:
            return "low_best"
        return None
