"""A test that may be looked at again as prompts are added: group-sequential boundaries, and the two repeated confidence
bounds from which a domain's verdict follows.

At look j the mean difference between two checkpoints over n_j prompts has the standard error s_j. Over all looks
together,

    upper_j = mean_j + c_j(a) s_j lies below the true difference at any look with probability at most a, and
    lower_j = mean_j − c_j(b) s_j above it with probability at most b

(repeated confidence intervals: Jennison & Turnbull 1989). So whoever stops at a look chosen by what was seen has the
same error rates. The boundaries c_j spend the error rate over the looks (Lan & DeMets 1983, with the spending function
of Hwang, Shih & DeCani 1990) and come from the joint distribution of the looks by numerical integration (Armitage,
McPherson & Rowe 1969).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

REGRESSED, HELD, UNDECIDED = "regressed", "not regressed", "undecided"
"""The verdicts on a domain."""

MAX_LOOKS = 6
"""Looks at a domain, each with twice the rollouts of the one before: 32 times those of the first at the last."""

REGRESSED_SPENDING, HELD_SPENDING = -1.0, 1.0
"""γ of the spending functions: the lower, the more of the error rate is left for the later looks. That a domain has not
regressed is what most looks are to find, so its error rate is spent early."""

_NODES = 400
_TAIL = 9.0
"""Standard deviations beyond which the normal density counts as zero."""


def spent(fraction: ArrayLike, rate: float, gamma: float) -> Floats:
    """Part of the error rate that may be spent up to a fraction t of the information.

    rate · (1 − e^(−γt)) / (1 − e^(−γ)), rate · t in the limit γ = 0. γ = −4 resembles the boundaries of O'Brien &
    Fleming, γ = 1 those of Pocock.
    """
    t = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
    return rate * t if gamma == 0 else rate * np.expm1(-gamma * t) / np.expm1(-gamma)


@lru_cache(maxsize=256)
def boundaries(fractions: tuple[float, ...], rate: float, gamma: float) -> tuple[float, ...]:
    """c_j for looks at these fractions of the information (increasing, the last one 1), for standard normal statistics
    whose correlation between looks i < j is √(t_i / t_j): the chance that Z_j exceeds c_j at look j and none before
    is what may be spent there. Raises ValueError for other fractions, or a rate outside (0, 0.5].
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    steps = np.diff((0.0, *fractions))
    if not len(fractions) or steps.min() <= 0 or abs(fractions[-1] - 1) > 1e-12 or not 0 < rate <= 0.5:
        raise ValueError(f"boundaries need increasing fractions up to 1 and a rate up to 0.5, not {fractions}, {rate}")
    spend = np.diff((0.0, *spent(fractions, rate, gamma)))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    found: list[float] = []
    # Brownian motion at the looks: `values` are nodes of those paths that crossed at no look yet, `density` their
    # density times the quadrature's weight.
    values, density = np.zeros(1), np.ones(1)
    for fraction, step, chance in zip(fractions, steps, spend, strict=True):
        root = float(np.sqrt(step))

        def surplus(edge: float, v: Floats = values, d: Floats = density, r: float = root, p: float = chance) -> float:
            return float(d @ ndtr((v - edge) / r)) - p

        scale = float(np.sqrt(fraction))
        edge = brentq(surplus, -_TAIL * scale, 2 * _TAIL * scale, xtol=1e-13, rtol=1e-13)
        found.append(edge / scale)
        low = -_TAIL * scale
        inner = low + (edge - low) * (nodes + 1) / 2
        kernel = np.exp(-0.5 * ((inner[:, None] - values) / root) ** 2) / (root * np.sqrt(2 * np.pi))
        density = (kernel @ density) * weights * (edge - low) / 2
        values = inner
    return tuple(found)


@dataclass(frozen=True)
class Bounds:
    """Repeated confidence bounds of a mean difference at one look: floats, or arrays of one shape."""

    mean: Floats
    error: Floats
    """Standard error of the mean."""
    upper: Floats
    lower: Floats
    threshold: float
    """upper − mean, in standard errors."""


def bounds(count: int, total: ArrayLike, squares: ArrayLike, upper_boundary: float, lower_boundary: float) -> Bounds:
    """The bounds from `count` prompts, the sum and the sum of squares of their differences, which lie in [−1, 1].

    The standard error is that of these differences and two more prompts, with the differences +1 and −1 at half weight
    each (Agresti & Min 2005, for matched pairs: half a count into each of four cells), because a few prompts without
    any difference do not show that there is none. A boundary is exceeded at the same tail probability of Student's t
    with count − 1 degrees of freedom. Raises ValueError for fewer than two prompts.
    """
    from scipy.special import ndtr, stdtrit

    if count < 2:
        raise ValueError(f"bounds need two or more prompts, not {count}")
    total, squares = np.asarray(total, dtype=np.float64), np.asarray(squares, dtype=np.float64)
    mean = total / count
    error = np.sqrt(((squares + 1) / (count + 2) - (total / (count + 2)) ** 2) / count)
    high = -float(stdtrit(count - 1, ndtr(-upper_boundary)))
    low = -float(stdtrit(count - 1, ndtr(-lower_boundary)))
    return Bounds(mean, error, mean + high * error, mean - low * error, high)


def is_excluded(bounds: Bounds, margin: float) -> NDArray[np.bool_]:
    """Whether a loss of the margin or more is excluded: the domain has not regressed."""
    return np.asarray(bounds.lower > -margin)


def is_shown(bounds: Bounds, minimum_effect: float) -> NDArray[np.bool_]:
    """Whether a loss is shown: the difference is below zero, and measured as at least the minimum effect."""
    return np.asarray((bounds.upper < 0) & (bounds.mean <= -minimum_effect))


def smallest_visible_loss(bounds: Bounds, minimum_effect: float, miss_rate: float) -> Floats:
    """The loss that this look shows with probability 1 − miss_rate: max(c s, minimum effect) + z s, for the boundary
    c, the standard error s, and the normal distribution's upper quantile z of the miss rate."""
    from scipy.special import ndtri

    needed = np.maximum(bounds.threshold * bounds.error, minimum_effect)
    return np.asarray(needed - ndtri(miss_rate) * bounds.error)


@dataclass(frozen=True)
class Size:
    """The size of a look: `passes` over the tested prompts of the benchmark and `held_out` further ones."""

    held_out: int
    passes: int


def series(first: int, pool: int, looks: int) -> list[Size]:
    """Sizes of the looks: each doubles the rollouts of the one before; prompts first, of which there are `first` in the
    benchmark and `pool` further ones, and where these are used up, more passes over all of them."""
    sizes = []
    for doubling in range(looks):
        wanted = first * 2**doubling
        held_out = min(pool, wanted - first)
        sizes.append(Size(held_out, math.ceil(wanted / (first + held_out))))
    return sizes


def fractions(first: int, sizes: list[Size]) -> tuple[float, ...]:
    """The information of each look as a fraction of the last one's: its share of the rollouts. Passes over the same
    prompts add less than that, so that the looks are more alike than the boundaries assume, and cross them less often.
    """
    rollouts = [(first + size.held_out) * size.passes for size in sizes]
    return tuple(count / rollouts[-1] for count in rollouts)


def affordable_looks(share: float) -> int:
    """The number of looks, at most MAX_LOOKS, of which the last needs no more than `share` further rollouts, as a
    multiple of those of the first."""
    return min(MAX_LOOKS, int(math.log2(1 + share)) + 1)
