"""From a matrix of harms to an order of stages, by the recipe's three rules (Nemotron-Cascade 2, arXiv 2603.19220):

1. First what a later stage can repair: where A hurts B, A is trained before B.
2. Together what does not conflict: domains of which neither hurts the other share a stage.
3. A distillation where capabilities have drifted: after the last stage that costs a domain something which no later
   stage trains.

A harm is a significant loss of score, in [0, 1]; what is not significant is no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Harms = dict[str, dict[str, float]]
"""Trained domain → hurt domain → what it loses, > 0. Absent where there is no harm."""

Stages = list[list[str]]
"""Domains trained together, in the order of the stages."""

TOLERANCE = 1e-9
"""Sums of harms that differ by less are equal: they may have been added up in another order."""

MOST_DOMAINS = 16
"""Every set of domains is looked at: 2^16 of them take about a second."""


@dataclass(frozen=True)
class Judged:
    """What an order leaves behind, by the harms measured."""

    unrepaired: dict[tuple[str, str], float]
    """(trained, hurt) → loss, where the hurt domain is trained in no later stage. Harm to domains that no stage
    trains is in it: no order avoids it."""
    together: list[tuple[str, str]]
    """(trained, hurt) in one stage, against rule 2."""
    distil_after: int | None
    """Index of the stage after which a distillation belongs (rule 3); None where nothing is left to win back."""

    @property
    def lost(self) -> float:
        """Sum of the unrepaired harms."""
        return sum(self.unrepaired.values())


def suggest(harms: Harms, domains: Sequence[str]) -> Stages:
    """The stages for `domains`, which stand in the default order: of the orders that leave least harm unrepaired the
    one nearest to the default, taken from its start; then each domain in the earliest stage that rule 2 allows.

    Where A hurts B and B hurts A, one harm stays: the smaller. Raises ValueError above MOST_DOMAINS.
    """
    if len(domains) > MOST_DOMAINS:
        raise ValueError(f"{len(domains)} domains are too many to order; at most {MOST_DOMAINS}")
    stages: Stages = []
    placed: dict[str, int] = {}
    for domain in _least_unrepaired(harms, domains):
        stage = 1 + max((placed[e] for e in placed if _conflict(harms, domain, e)), default=-1)
        placed[domain] = stage
        if stage == len(stages):
            stages.append([])
        stages[stage].append(domain)
    return [sorted(stage, key=list(domains).index) for stage in stages]


def judge(harms: Harms, stages: Stages) -> Judged:
    """What an order of stages leaves behind. `harms` may name domains that no stage trains, as hurt."""
    at = {domain: index for index, stage in enumerate(stages) for domain in stage}
    unrepaired: dict[tuple[str, str], float] = {}
    together: list[tuple[str, str]] = []
    for trained, index in at.items():
        for hurt, loss in harms.get(trained, {}).items():
            if hurt == trained:
                continue
            if at.get(hurt, -1) < index:
                unrepaired[trained, hurt] = loss
            elif at[hurt] == index:
                together.append((trained, hurt))
    return Judged(unrepaired, together, max((at[trained] for trained, _ in unrepaired), default=None))


def _least_unrepaired(harms: Harms, domains: Sequence[str]) -> list[str]:
    """Exact, by dynamic programming over sets: what is lost after a set was trained does not depend on its order."""
    loss = [[harms.get(trained, {}).get(hurt, 0.0) for hurt in domains] for trained in domains]
    count = len(domains)
    full = (1 << count) - 1
    left = [0.0] * (full + 1)
    """Set already trained → the least that the rest of the order costs it and itself."""

    def cost(trained: int, done: int) -> float:
        return sum(loss[trained][hurt] for hurt in range(count) if done >> hurt & 1)

    for done in range(full - 1, -1, -1):
        left[done] = min(cost(d, done) + left[done | 1 << d] for d in range(count) if not done >> d & 1)
    order: list[str] = []
    done = 0
    while done != full:
        nearest = next(
            d
            for d in range(count)
            if not done >> d & 1 and cost(d, done) + left[done | 1 << d] <= left[done] + TOLERANCE
        )
        order.append(domains[nearest])
        done |= 1 << nearest
    return order


def _conflict(harms: Harms, one: str, other: str) -> bool:
    return other in harms.get(one, {}) or one in harms.get(other, {})
