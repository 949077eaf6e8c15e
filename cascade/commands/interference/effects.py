"""The matrix: what RL on each domain changed in the score of every domain, on the same benchmark prompts."""

from dataclasses import dataclass
from typing import Literal

from cascade.commands.interference.order import Harms
from cascade.decisions.regression import paired_on_shared
from cascade.evaluation.results import EvaluationResult
from cascade.evaluation.statistics import PairedTest, holm

SIGNIFICANCE = 0.05
"""Chance of any false effect in the whole matrix, for losses and for gains each (Holm)."""

MINIMUM_EFFECT = 0.02
"""A smaller change of score, significant or not, counts for nothing: as at the gate."""


@dataclass(frozen=True)
class Effect:
    """Of RL on domain `trained` on the score of domain `evaluated`: after minus start, paired by prompt."""

    trained: str
    evaluated: str
    start: float
    after: float
    difference: float
    low: float
    high: float
    p_worse: float
    """Adjusted over the matrix; `p_better` likewise."""
    p_better: float
    prompts: int

    @property
    def verdict(self) -> Literal["hurts", "helps", "none"]:
        if abs(self.difference) < MINIMUM_EFFECT:
            return "none"
        if self.p_worse <= SIGNIFICANCE:
            return "hurts"
        return "helps" if self.p_better <= SIGNIFICANCE else "none"


def effects(start: EvaluationResult, after: dict[str, EvaluationResult], domains: list[str], seed: int) -> list[Effect]:
    """One effect a trained domain (`after`) and evaluated one (`domains`), row by row.

    Raises CascadeError where two evaluations are of other prompts.
    """
    cells = [(trained, evaluated) for trained in after for evaluated in domains]
    worse = [paired_on_shared(e, after[t], start, seed, "interference", t) for t, e in cells]
    better = [paired_on_shared(e, start, after[t], seed, "interference", t, "better") for t, e in cells]
    p_worse, p_better = (holm([test.p_value for test in tests]) for tests in (worse, better))
    return [_effect(t, e, start, after[t], worse[i], p_worse[i], p_better[i]) for i, (t, e) in enumerate(cells)]


def harms_of(measured: list[Effect]) -> Harms:
    """The significant losses, for the order; what a domain does to itself is none of it."""
    harms: Harms = {}
    for effect in measured:
        if effect.verdict == "hurts" and effect.trained != effect.evaluated:
            harms.setdefault(effect.trained, {})[effect.evaluated] = -effect.difference
    return harms


def _effect(
    trained: str,
    evaluated: str,
    start: EvaluationResult,
    after: EvaluationResult,
    test: PairedTest,
    p_worse: float,
    p_better: float,
) -> Effect:
    return Effect(
        trained,
        evaluated,
        start.score(evaluated),
        after.score(evaluated),
        test.difference,
        test.interval.low,
        test.interval.high,
        p_worse,
        p_better,
        test.prompts,
    )
