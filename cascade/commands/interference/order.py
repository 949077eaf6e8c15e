"""From a matrix of harms to an order of stages, by three rules (Nemotron-Cascade 2, arXiv 2603.19220):

1. If A hurts B, A is trained before B, so that a later stage can repair the loss.
2. Domains that do not hurt each other share a stage.
3. A distillation follows the last stage that hurts a domain which no later stage trains.

A harm is a significant loss of score, in [0, 1]; a loss that is not significant is no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Harms = dict[str, dict[str, float]]
"""Trained domain → hurt domain → its loss of score, > 0. Only pairs with harm have an entry."""

Stages = list[list[str]]
"""The domains of each stage, in order."""

TOLERANCE = 1e-9
"""Sums of harms that differ by less are equal: the order of addition may differ."""

MOST_DOMAINS = 16
"""The search visits every subset of domains: 2^16 subsets take about a second."""


@dataclass(frozen=True)
class Judged:
    """The harms that an order of stages leaves unrepaired."""

    unrepaired: dict[tuple[str, str], float]
    """(trained, hurt) → loss, if no later stage trains the hurt domain. Includes harm to domains that no stage trains,
    which no order avoids."""
    together: list[tuple[str, str]]
    """(trained, hurt) pairs in the same stage, against rule 2."""
    distil_after: int | None
    """Index of the stage after which a distillation should follow (rule 3); None if nothing is left to recover."""

    @property
    def lost(self) -> float:
        """Sum of the unrepaired harms."""
        return sum(self.unrepaired.values())


def suggest(harms: Harms, domains: Sequence[str]) -> Stages:
    """The suggested stages for `domains`, given in the default order. Of the orders that leave the least harm
    unrepaired, the one that keeps to the default longest; then each domain goes into the earliest stage that rule 2
    allows.

    If A hurts B and B hurts A, the smaller harm is left. Raises ValueError for more than MOST_DOMAINS.
    """
    if len(domains) > MOST_DOMAINS:
        raise ValueError(f"{len(domains)} domains are too many to order; at most {MOST_DOMAINS}")
    stages: Stages = []
    stage_of: dict[str, int] = {}
    for domain in _least_unrepaired(harms, domains):
        stage = 1 + max((stage_of[e] for e in stage_of if _conflict(harms, domain, e)), default=-1)
        stage_of[domain] = stage
        if stage == len(stages):
            stages.append([])
        stages[stage].append(domain)
    return [sorted(stage, key=list(domains).index) for stage in stages]


def judge(harms: Harms, stages: Stages) -> Judged:
    """The harms that an order of stages leaves unrepaired. The hurt domains of `harms` may be in no stage."""
    stage_of = {domain: index for index, stage in enumerate(stages) for domain in stage}
    unrepaired: dict[tuple[str, str], float] = {}
    together: list[tuple[str, str]] = []
    for trained, index in stage_of.items():
        for hurt, loss in harms.get(trained, {}).items():
            if hurt == trained:
                continue
            if stage_of.get(hurt, -1) < index:
                unrepaired[trained, hurt] = loss
            elif stage_of[hurt] == index:
                together.append((trained, hurt))
    return Judged(unrepaired, together, max((stage_of[trained] for trained, _ in unrepaired), default=None))


def _least_unrepaired(harms: Harms, domains: Sequence[str]) -> list[str]:
    """An exact minimum by dynamic programming over subsets of domains, as bit masks: the cost of the rest of an order
    depends on the set of domains before it, not on their order."""
    loss = [[harms.get(trained, {}).get(hurt, 0.0) for hurt in domains] for trained in domains]
    count = len(domains)
    full = (1 << count) - 1
    minimum = [0.0] * (full + 1)
    """Set of domains already trained → least cost of the rest of the order."""

    def cost(trained: int, subset: int) -> float:
        return sum(loss[trained][hurt] for hurt in range(count) if subset >> hurt & 1)

    for subset in range(full - 1, -1, -1):
        minimum[subset] = min(cost(d, subset) + minimum[subset | 1 << d] for d in range(count) if not subset >> d & 1)
    order: list[str] = []
    subset = 0
    while subset != full:
        nearest = next(
            d
            for d in range(count)
            if not subset >> d & 1 and cost(d, subset) + minimum[subset | 1 << d] <= minimum[subset] + TOLERANCE
        )
        order.append(domains[nearest])
        subset |= 1 << nearest
    return order


def _conflict(harms: Harms, one: str, other: str) -> bool:
    return other in harms.get(one, {}) or one in harms.get(other, {})
