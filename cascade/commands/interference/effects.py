"""The interference matrix: the change that RL on each domain made to every domain's score, on the same prompts."""

from dataclasses import dataclass
from typing import Literal

from cascade.commands.interference.order import Harms
from cascade.decisions.regression import paired_on_shared
from cascade.evaluation.results import EvaluationResult
from cascade.evaluation.statistics import PairedTest, holm

SIGNIFICANCE = 0.05
"""Family-wise error rate over the whole matrix, for losses and for gains separately (Holm)."""

MINIMUM_EFFECT = 0.02
"""A smaller change of score is ignored, significant or not, as in the regression check."""


@dataclass(frozen=True)
class Effect:
    """Effect of RL on domain `trained` on the score of domain `evaluated`: after − start, paired by prompt."""

    trained: str
    evaluated: str
    start: float
    after: float
    difference: float
    low: float
    high: float
    p_worse: float
    """Adjusted for the whole matrix (Holm), like `p_better`."""
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
    """One effect for each trained domain (`after`) and evaluated domain (`domains`), row by row.

    Raises CascadeError if two evaluations have different prompts.
    """
    cells = [(trained, evaluated) for trained in after for evaluated in domains]
    worse = [paired_on_shared(e, after[t], start, seed, "interference", t) for t, e in cells]
    better = [paired_on_shared(e, start, after[t], seed, "interference", t, "better") for t, e in cells]
    p_worse, p_better = (holm([test.p_value for test in tests]) for tests in (worse, better))
    return [_effect(t, e, start, after[t], worse[i], p_worse[i], p_better[i]) for i, (t, e) in enumerate(cells)]


def harms_of(measured: list[Effect]) -> Harms:
    """The significant losses, for ordering; the effect of a domain on itself is left out."""
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
