"""The group-sequential test: boundaries against published tables and an independent integration, bounds by hand,
coverage over all looks by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from cascade.evaluation.sequential import (
    HELD_SPENDING,
    MAX_LOOKS,
    REGRESSED_SPENDING,
    Size,
    affordable_looks,
    boundaries,
    bounds,
    fractions,
    is_excluded,
    is_shown,
    series,
    smallest_visible_loss,
    spent,
)

DOUBLING = tuple(2.0 ** (look - MAX_LOOKS + 1) for look in range(MAX_LOOKS))


def test_the_spending_function_by_hand():
    assert spent(0.25, 0.05, -4) == pytest.approx(0.05 * (1 - math.e) / (1 - math.e**4))
    assert spent(0.5, 0.1, 1) == pytest.approx(0.1 * (1 - math.exp(-0.5)) / (1 - math.exp(-1)))
    assert spent([0.3, 1.0, 2.0], 0.05, 0) == pytest.approx([0.015, 0.05, 0.05])
    assert spent(1.0, 0.05, 3) == pytest.approx(0.05)
    assert spent(0.3, 0.05, 1e-9) == pytest.approx(0.015)


def test_one_look_is_the_usual_quantile():
    assert boundaries((1.0,), 0.025, -4) == pytest.approx((stats.norm.isf(0.025),), rel=1e-12)


def test_boundaries_are_those_of_the_r_package_gsdesign():
    # Its default design, three looks at 2.5 %, Hwang-Shih-DeCani with γ = −4: its manual prints 3.01, 2.55, 2.00.
    assert boundaries((1 / 3, 2 / 3, 1.0), 0.025, -4) == pytest.approx((3.0107, 2.5465, 1.9992), abs=1e-4)


@pytest.mark.parametrize(("rate", "gamma"), [(0.005, REGRESSED_SPENDING), (0.1, HELD_SPENDING), (0.3, -2.0)])
def test_the_looks_together_spend_the_rate(rate, gamma):
    """Against SciPy's integral of the multivariate normal distribution, an independent method."""
    looks = (0.125, 0.25, 0.5, 1.0)
    found = boundaries(looks, rate, gamma)
    correlation = [[math.sqrt(min(s, t) / max(s, t)) for s in looks] for t in looks]
    inside = stats.multivariate_normal(cov=correlation, abseps=1e-7, releps=1e-7, maxpts=400_000)
    for count in range(1, 5):
        normal = stats.multivariate_normal(
            cov=[row[:count] for row in correlation[:count]], abseps=1e-7, releps=1e-7, maxpts=400_000, seed=0
        )
        assert 1 - normal.cdf(found[:count]) == pytest.approx(float(spent(looks[count - 1], rate, gamma)), abs=2e-5)
    assert inside.cdf(found) == pytest.approx(1 - rate, abs=2e-5)


@pytest.mark.parametrize(
    ("looks", "rate"), [((0.5, 0.9), 0.05), ((0.5, 0.5, 1.0), 0.05), ((), 0.05), ((1.0,), 0.0), ((1.0,), 0.6)]
)
def test_boundaries_refuse_what_is_no_series_of_looks(looks, rate):
    with pytest.raises(ValueError, match="boundaries need increasing fractions up to 1"):
        boundaries(looks, rate, 0.0)


def test_bounds_by_hand():
    differences = [0.5, -1.0, 0.0, 0.0, 0.5, -0.5, 0.0, -0.5]
    found = bounds(8, sum(differences), sum(d * d for d in differences), 1.96, 1.2815515655446004)
    # Ten differences, two of them ±1 at half weight each: Σd = −1, Σd² = 2 + 1.
    error = math.sqrt((3 / 10 - (1 / 10) ** 2) / 8)
    assert float(found.mean) == -1 / 8
    assert float(found.error) == pytest.approx(error)
    assert float(found.upper) == pytest.approx(-1 / 8 + stats.t.isf(stats.norm.sf(1.96), 7) * error)
    assert float(found.lower) == pytest.approx(-1 / 8 - stats.t.isf(0.1, 7) * error)
    assert (bool(is_shown(found, 0.02)), bool(is_excluded(found, 0.05))) == (False, False)
    with pytest.raises(ValueError, match="two or more prompts, not 1"):
        bounds(1, 0.0, 0.0, 1.96, 1.28)


def test_no_difference_is_no_proof():
    few, many = bounds(8, 0.0, 0.0, 2.0, 1.28), bounds(800, 0.0, 0.0, 2.0, 1.28)
    assert (bool(is_excluded(few, 0.05)), bool(is_excluded(many, 0.05))) == (False, True)
    # The floor on the standard error goes with the number of prompts, not with its root.
    assert float(few.error / many.error) == pytest.approx(math.sqrt(8 * 10 / (800 * 802)) ** -1)


def test_a_loss_is_shown_only_from_the_minimum_effect():
    found = bounds(1000, -15.0, 5.0, 2.0, 1.28)
    assert float(found.upper) < 0
    assert [bool(is_shown(found, effect)) for effect in (0.01, 0.015, 0.02)] == [True, True, False]


def test_the_smallest_visible_loss_is_found_as_often_as_said():
    """Normal differences: at that loss the look shows it with probability 1 − miss_rate."""
    rng = np.random.default_rng(0)
    count, sigma, boundary, miss = 400, 0.3, 2.5, 0.1
    draws = rng.normal(0.0, sigma, (20_000, count))
    start = bounds(count, draws.sum(1), (draws**2).sum(1), boundary, 1.28)
    for effect in (0.02, 0.08):
        loss = float(np.mean(smallest_visible_loss(start, effect, miss)))
        assert loss == pytest.approx((max(boundary * 0.015, effect)) + 1.28155 * 0.015, rel=0.03)
        moved = draws - loss
        shown = is_shown(bounds(count, moved.sum(1), (moved**2).sum(1), boundary, 1.28), effect)
        assert float(shown.mean()) == pytest.approx(1 - miss, abs=0.012)


def test_looks_take_prompts_first_and_then_more_rollouts():
    assert series(40, 1000, 4) == [Size(0, 1), Size(40, 1), Size(120, 1), Size(280, 1)]
    assert series(40, 60, 5) == [Size(0, 1), Size(40, 1), Size(60, 2), Size(60, 4), Size(60, 7)]
    assert series(3, 0, 3) == [Size(0, 1), Size(0, 2), Size(0, 4)]
    assert fractions(40, series(40, 60, 5)) == pytest.approx([40 / 700, 80 / 700, 200 / 700, 400 / 700, 1.0])


def test_looks_that_a_budget_allows():
    # A second look costs once the rollouts of the first, a third three times, a fourth seven times.
    assert [affordable_looks(share) for share in (0, 0.99, 1, 2.9, 3, 7, 31, 1e9)] == [1, 1, 2, 2, 3, 4, 6, MAX_LOOKS]


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_the_bounds_hold_at_all_looks_together(loss):
    """Rewards of pairs of prompts as checkpoints have them: mostly equal, else 0 against 1. Coverage over six looks."""
    rng, runs, first = np.random.default_rng(1), 4_000, 40
    upper = boundaries(DOUBLING, 0.02, REGRESSED_SPENDING)
    lower = boundaries(DOUBLING, 0.1, HELD_SPENDING)
    total, squares, count = np.zeros(runs), np.zeros(runs), 0
    above, below = np.zeros(runs, bool), np.zeros(runs, bool)
    for look in range(MAX_LOOKS):
        more = first * 2**look - count
        outcome = rng.random((runs, more))
        gains, losses = (outcome < 0.1 - loss / 2).sum(1), (outcome > 0.9 - loss / 2).sum(1)
        total, squares, count = total + gains - losses, squares + gains + losses, count + more
        found = bounds(count, total, squares, upper[look], lower[look])
        above |= found.upper < -loss
        below |= found.lower > -loss
    # Three standard errors of the simulation above the rates.
    assert above.mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / runs)
    assert below.mean() <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)
    assert above.mean() > 0.005
    assert below.mean() > 0.05
