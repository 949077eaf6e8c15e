"""The statistics of benchmarks: estimators with intervals, and tests between checkpoints on the same prompts.

The prompt is the unit throughout. Rollouts of one prompt are not independent of each other, so they are first
averaged to one number a prompt, and intervals and tests run over prompts (clustered standard errors: Miller,
arXiv 2411.00640, sections 2.2 and 4.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.utils.seeds import derive_seed

SOLVED = 1.0
"""Reward from which a rollout counts as a solution."""

RESAMPLES = 9_999


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """`difference` is mean(candidate − reference) over `prompts` prompts, with a 95 % `interval`.

    `p_value` is one-sided: how often chance alone makes a difference this low or lower, were both equally good.
    """

    difference: float
    interval: Interval
    p_value: float
    prompts: int


def pass_at_k(rollouts: int, solved: int, k: int) -> float:
    """Unbiased estimate of the chance that k rollouts hold a solution, from `solved` of `rollouts`.

    1 − C(n−c, k) / C(n, k) (Chen et al., arXiv 2107.03374, equation 1). Raises ValueError unless 1 ≤ k ≤ rollouts.
    """
    if not 1 <= k <= rollouts or not 0 <= solved <= rollouts:
        raise ValueError(f"pass@{k} of {solved} solved in {rollouts} rollouts is not defined")
    return 1.0 - math.comb(rollouts - solved, k) / math.comb(rollouts, k)


def mean_interval(prompt_means: Sequence[float], rollouts: int) -> Interval:
    """95 % interval of the mean over prompts, in closed form. Means lie in [0, 1]; `rollouts` is their total number.

    Wilson's score interval with the effective sample size p(1−p)/se², where se is the standard error clustered
    by prompt: the usual interval for a proportion from a clustered sample (Franco et al., J. Survey Stat.
    Methodol. 7, 2019). It stays within [0, 1] and keeps a width where every prompt is solved, where the normal
    interval claims certainty. A sample holds no more than `rollouts` independent draws, which bounds the size.
    Raises ValueError without prompts or for means outside [0, 1].
    """
    values = np.asarray(prompt_means, dtype=np.float64)
    if not (len(values) and values.min() >= 0 and values.max() <= 1):
        raise ValueError("an interval needs at least one prompt, with means in [0, 1]")
    mean, spread = float(values.mean()), float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    if mean in (0.0, 1.0):
        size = float(len(values))
    elif spread == 0.0:
        size = float(rollouts)
    else:
        size = min(mean * (1 - mean) / spread, float(rollouts))
    z2 = _Z95 * _Z95
    centre = (mean + z2 / (2 * size)) / (1 + z2 / size)
    half = _Z95 / (1 + z2 / size) * math.sqrt(mean * (1 - mean) / size + z2 / (4 * size * size))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


_Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def paired_test(candidate: Sequence[float], reference: Sequence[float], *seed_keys: int | str) -> PairedTest:
    """Is the candidate worse than the reference on the same prompts? `candidate[i]`, `reference[i]`: prompt i's mean.

    A sign-flip permutation test on the prompts' differences: were the two equally good, each difference would
    be as likely with the other sign. It needs no normal distribution, which differences of a few rollouts a
    prompt do not have (mostly zero, a few large steps), and is exact up to the number of resamples; scipy
    enumerates all 2ⁿ flips where they are fewer. The interval is the usual paired-t one.

    Seeded by `seed_keys`. Raises ValueError for unequal lengths or fewer than two prompts.
    """
    # Imported here: it takes a third of a second, which the nodes that only train need not pay.
    from scipy import stats

    if len(candidate) != len(reference) or len(candidate) < 2:
        raise ValueError(f"a paired test needs the same two or more prompts, not {len(candidate)} and {len(reference)}")
    differences = np.asarray(candidate, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    mean = float(differences.mean())
    if not differences.any():
        return PairedTest(0.0, Interval(0.0, 0.0), 1.0, len(differences))
    result = stats.permutation_test(
        (differences,),
        _mean,
        permutation_type="samples",
        alternative="less",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(derive_seed("paired_test", *seed_keys)),
    )
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / math.sqrt(len(differences))
    return PairedTest(mean, Interval(mean - float(half), mean + float(half)), float(result.pvalue), len(differences))


def _mean(differences: np.ndarray, axis: int) -> np.ndarray:
    return differences.mean(axis=axis)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests (Holm 1979): rejecting those ≤ α keeps the chance of any false alarm ≤ α."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def recovery_rate(before: float, after: float, teacher: float) -> float | None:
    """(after - before) / (teacher - before): the share of the gap to the teacher that a distillation closed; it may
    exceed 1.

    None where the teacher is not above `before`: there was nothing to recover.
    """
    return (after - before) / (teacher - before) if teacher > before else None
