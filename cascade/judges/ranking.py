"""From comparisons to rewards: Nemotron 3 Nano's group-relative length control (arXiv 2512.20848, section 3.3), which
the Nemotron-Cascade 2 recipe uses with all pairs of a group instead of neighbours. Pure functions.

Qualities are on the judge's scale, 1 to 5; ties broken by the ranking can leave it by 2.5. Lengths are in characters,
as in NeMo Gym's `genrm_compare`.
"""

import math
from collections.abc import Mapping, Sequence

from cascade.judges.base import Comparison

MIDDLE_RANKING = 3.5
NEUTRAL = 3.0
"""Quality of a response that there is nothing to compare with: the middle of the scale."""
LENGTH_WEIGHT = 0.5
"""λ, of the reasoning's length and of the answer's alike."""
CONCISENESS_BONUS = 0.5
"""β, of the reasoning and of the answer alike."""
TOP_SHARE = 0.2
"""The best fifth of a group (the 80th percentile and above) is of top quality."""
LEAST_DECIDED = 0.5
"""Share of its comparisons that must have been decided for a response to have a quality."""

LOWEST = 1 - 2.5 - 2 * LENGTH_WEIGHT
HIGHEST = 5 + 2.5 + 2 * LENGTH_WEIGHT + 2 * CONCISENESS_BONUS


def scores(comparison: Comparison) -> tuple[float, float]:
    """Of the first and the second response; equal scores are moved apart by the ranking."""
    if comparison.score_1 != comparison.score_2:
        return comparison.score_1, comparison.score_2
    shift = MIDDLE_RANKING - comparison.ranking
    return comparison.score_1 + shift, comparison.score_2 - shift


def both_orders(forward: Comparison, backward: Comparison) -> tuple[float, float]:
    """Scores of responses A and B, compared as (A, B) and as (B, A): the mean, so that being first gains nothing."""
    (a1, b1), (b2, a2) = scores(forward), scores(backward)
    return (a1 + a2) / 2, (b1 + b2) / 2


def qualities(counts: Sequence[int], pairs: Mapping[tuple[int, int], tuple[float, float]]) -> list[float | None]:
    """Mean score of each of a group's distinct answers against the others.

    `counts[i]` is how many rollouts gave answer i: against an answer that was given twice counts twice.
    `pairs[i, j]`, i < j, are the scores of i and of j; undecided pairs are missing. None where fewer than
    LEAST_DECIDED of an answer's comparisons were decided: its mean would say more about chance than about it.
    """
    means: list[float | None] = []
    for i in range(len(counts)):
        total = sum(counts) - counts[i]
        decided, parts = 0, []
        for (first, second), of_pair in pairs.items():
            if i in (first, second):
                weight = counts[second if i == first else first]
                decided += weight
                parts.append(weight * of_pair[0 if i == first else 1])
        if total == 0:
            means.append(NEUTRAL)
        elif decided < LEAST_DECIDED * total:
            means.append(None)
        else:
            # Exact, and so the same in whatever order the pairs come: equally good answers are equal.
            means.append(math.fsum(parts) / decided)
    return means


def length_weights(lengths: Sequence[int]) -> list[float]:
    """w̃_i = w_i − mean(w), w_i = 1 − (ℓ_i − ℓ_min)/(ℓ_max − ℓ_min): zero-mean, larger for the shorter; 0 where all
    lengths are equal."""
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    weights = [1 - (length - shortest) / (longest - shortest) for length in lengths]
    mean = math.fsum(weights) / len(weights)
    return [weight - mean for weight in weights]


def length_adjustments(reasoning: Sequence[int], answers: Sequence[int]) -> list[float]:
    """λ · (w̃ of the reasoning's length + w̃ of the answer's length)."""
    return [
        LENGTH_WEIGHT * (thinking + answer)
        for thinking, answer in zip(length_weights(reasoning), length_weights(answers), strict=True)
    ]


def conciseness_bonuses(quality: Sequence[float], reasoning: Sequence[int], answers: Sequence[int]) -> list[float]:
    """β for the shortest reasoning and β for the shortest answer of the group, each only at top quality.

    Empty ones do not count as short. Where several are equally short each has the bonus, so that equal responses
    keep equal rewards.
    """
    ranked = sorted(quality, reverse=True)
    threshold = ranked[max(0, int(TOP_SHARE * len(ranked)) - 1)]
    bonuses = [0.0] * len(quality)
    for lengths in (reasoning, answers):
        shortest = min((length for length in lengths if length > 0), default=None)
        for i, length in enumerate(lengths):
            if length == shortest and quality[i] >= threshold:
                bonuses[i] += CONCISENESS_BONUS
    return bonuses


def reward(score: float) -> float:
    """A score (quality, adjustment and bonus together) on [0, 1], by the one line that maps all it can be onto it.

    Group-relative advantages do not change under it; clipping would take the differences at the top away.
    """
    return (score - LOWEST) / (HIGHEST - LOWEST)
