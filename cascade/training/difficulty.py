"""What share of a node's prompts can teach: measured before its first step where the recipe asks for it, watched while
it trains.

A prompt can teach where the rewards of its rollouts differ: its pass rate lies strictly between 0 and 1. Otherwise all
advantages of its group are zero.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from cascade.errors import CascadeError
from cascade.recipe import RLNode
from cascade.training.collector import Collector
from cascade.training.groups import Group
from cascade.training.metrics import Metrics
from cascade.training.prompts import Prompt
from cascade.utils.progress import say
from cascade.utils.seeds import derive_seed

PATIENCE = 10
"""Steps over which the share of prompts that teach is watched."""


@dataclass(frozen=True)
class Counts:
    """Prompts that were sampled: all of them, and of these those that teach, that no rollout solves and that every
    rollout solves."""

    prompts: int
    teaching: int
    unsolved: int
    solved: int

    @classmethod
    def of(cls, node: RLNode, groups: list[Group]) -> "Counts":
        rewards = [group.rewards for group in groups if group.rewards]
        return cls(
            len(groups),
            sum(not g.zero_variance and max(g.rewards) > node.min_best_reward for g in groups),
            sum(max(group) == 0 for group in rewards),
            sum(min(group) == 1 for group in rewards),
        )

    @property
    def share(self) -> float:
        return self.teaching / self.prompts

    def __str__(self) -> str:
        return (
            f"{self.teaching} of {self.prompts} prompts can teach ({self.unsolved} solved by no rollout, "
            f"{self.solved} by every one)"
        )


Difficulty = dict[str, list[tuple[int | None, Counts]]]
"""Domain → (level, counts) of its levels; rows without a level have None."""


def measure(
    node: RLNode, name: str, seed: int, prompts: Mapping[str, list[Prompt]], collector: Collector
) -> Difficulty:
    """Sample `node.difficulty` prompts of each domain and level with the current weights. The draw and the rollouts
    have seeds of their own, so that training is not affected by how many were measured.

    Raises CascadeError when more rollouts than `max_failure_rate` have no verdict.
    """
    sample: list[Prompt] = []
    for domain, of_domain in prompts.items():
        for level, of_level in _by_level(of_domain).items():
            draw = Random(derive_seed(seed, name, "difficulty", domain, -1 if level is None else level))
            sample += draw.sample(of_level, min(node.difficulty, len(of_level)))
    found: dict[tuple[str, int | None], list[Group]] = defaultdict(list)
    for group in collector.measure(sample):
        found[group.prompt.domain, group.prompt.level].append(group)
    difficulty: Difficulty = defaultdict(list)
    for (domain, level), groups in found.items():
        difficulty[domain].append((level, Counts.of(node, groups)))
    return dict(difficulty)


def choose_levels(
    node: RLNode, name: str, prompts: Mapping[str, list[Prompt]], difficulty: Difficulty
) -> dict[str, list[Prompt]]:
    """The prompts of the levels of which at least `min_teaching` can teach, and at least one did.

    Raises CascadeError for a domain in which no level does.
    """
    chosen = {}
    for domain, of_domain in prompts.items():
        kept = {level for level, counts in difficulty[domain] if counts.teaching and counts.share >= node.min_teaching}
        if not kept:
            total = [counts for _, counts in difficulty[domain]]
            raise CascadeError(
                f"{name}: {domain}: {in_words(node, difficulty)[domain]}; rl.{name}.min_teaching is "
                f"{node.min_teaching:g}: {_advice(sum(c.unsolved for c in total), sum(c.solved for c in total))}"
            )
        chosen[domain] = [prompt for prompt in of_domain if prompt.level in kept]
    return chosen


def in_words(node: RLNode, difficulty: Difficulty) -> dict[str, str]:
    """Domain → what was measured of each of its levels."""
    words = {}
    for domain, levels in difficulty.items():
        parts = []
        for level, counts in levels:
            left_out = "" if counts.teaching and counts.share >= node.min_teaching else ", left out"
            parts.append(f"{'' if level is None else f'level {level}: '}{counts}{left_out}")
        words[domain] = "; ".join(parts)
    return words


def as_json(difficulty: Difficulty) -> dict[str, Any]:
    return {domain: [[level, vars(counts)] for level, counts in levels] for domain, levels in difficulty.items()}


def from_json(content: dict[str, Any]) -> Difficulty:
    return {domain: [(level, Counts(**counts)) for level, counts in levels] for domain, levels in content.items()}


class SignalWatch:
    """Says of the first step what share of its prompts can teach, and stops a node whose batches are mostly empty.

    `earlier`: the metrics of the steps before a node was resumed.
    """

    def __init__(self, node: RLNode, name: str, earlier: list[Metrics]):
        self._node = node
        self._name = name
        self._steps = list(earlier)

    def step(self, metrics: Metrics, groups: list[Group]) -> None:
        """Call after each step, with its metrics and all groups that it sampled. Raises CascadeError where, over as
        many steps as are watched, fewer prompts than `min_teaching` teach, and after the last step where no step
        trained anything."""
        if not self._steps:
            self._say_start(groups)
        self._steps.append(metrics)
        done, steps = len(self._steps), self._node.steps
        last = self._steps[-PATIENCE:]
        sampled = sum(step["rollout/groups"] for step in last)
        share = sum(step["rollout/groups"] * _teaching(step) for step in last) / sampled
        idle = done == steps and all(step["rollout/skipped_step"] for step in self._steps)
        if idle or (done >= min(PATIENCE, steps) and share < self._node.min_teaching):
            unsolved, solved = (
                sum(step["rollout/groups"] * step.get(f"rollout/solved_by_{by}", 0.0) for step in last) / sampled
                for by in ("none", "all")
            )
            why = "no step trained anything" if idle else f"rl.{self._name}.min_teaching is {self._node.min_teaching:g}"
            raise CascadeError(
                f"{self._name}: of the prompts of steps {done - len(last) + 1} to {done} {share:.0%} can teach "
                f"({unsolved:.0%} solved by no rollout, {solved:.0%} by every one), and {why}: "
                f"{_advice(unsolved, solved)}"
            )

    def _say_start(self, groups: list[Group]) -> None:
        of_domain: dict[str, list[Group]] = defaultdict(list)
        for group in groups:
            of_domain[group.prompt.domain].append(group)
        parts = [
            f"{domain} {counts.teaching} of {counts.prompts}"
            for domain, its_groups in of_domain.items()
            if (counts := Counts.of(self._node, its_groups))
        ]
        each = f": {', '.join(parts)}" if len(parts) > 1 else ""
        say(f"{self._name}: in the first step {Counts.of(self._node, groups)}{each}")


def _teaching(metrics: Metrics) -> float:
    """Share of a step's groups that teach: neither dropped nor of zero variance."""
    return 1 - max(metrics["rollout/filtered"], metrics["rollout/zero_variance"])


def _advice(unsolved: float, solved: float) -> str:
    if solved > unsolved:
        return "the prompts are too easy; take harder levels (curation.sources) or filter by curation.difficulty"
    return (
        "the prompts are too hard, or answers are cut off or not in the form that is asked; take easier levels "
        "(curation.sources), choose among them by `difficulty` of the node, or fine-tune longer before"
    )


def _by_level(prompts: list[Prompt]) -> dict[int | None, list[Prompt]]:
    """Level → prompts, the easiest level first."""
    levels: dict[int | None, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        levels[prompt.level].append(prompt)
    return dict(sorted(levels.items(), key=lambda item: -1 if item[0] is None else item[0]))
