import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cascade.evaluation.statistics import Interval, holm, mean_interval, paired_test, pass_at_k, recovery_rate


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)
    assert pass_at_k(8, 3, 8) == 1.0
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(5, 4, 2) == 1.0


def test_pass_at_k_is_the_average_over_all_subsets():
    outcomes = [1, 1, 0, 0, 0, 0]
    for k in range(1, 7):
        subsets = [any(chosen) for chosen in itertools.combinations(outcomes, k)]
        assert pass_at_k(6, 2, k) == pytest.approx(sum(subsets) / len(subsets))


@pytest.mark.parametrize(("rollouts", "solved", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_not_defined(rollouts, solved, k):
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(rollouts, solved, k)


def test_interval_of_independent_rollouts_is_scipys_wilson_interval():
    # Prompts that are each all right or all wrong: clustered variance p(1-p)/(n-1), so n - 1 effective draws.
    values = [1.0] * 30 + [0.0] * 20
    wilson = stats.binomtest(30, 50).proportion_ci(method="wilson")
    ours = mean_interval(values, 400)
    assert (ours.low, ours.high) == pytest.approx((wilson.low, wilson.high), abs=3e-3)
    assert ours.high - ours.low > wilson.high - wilson.low


def test_interval_counts_prompts_not_rollouts():
    """Eight rollouts that always agree tell no more than one."""
    values = [1.0] * 10 + [0.0] * 10
    assert mean_interval(values, 20) == mean_interval(values, 160)


def test_interval_narrows_where_prompts_agree():
    spread = mean_interval([0.0, 1.0] * 20, 320)
    narrow = mean_interval([0.4, 0.6] * 20, 320)
    assert narrow.high - narrow.low < spread.high - spread.low


def test_interval_at_the_edges_keeps_a_width():
    full = mean_interval([1.0] * 50, 400)
    wilson = stats.binomtest(50, 50).proportion_ci(method="wilson")
    assert (full.low, full.high) == pytest.approx((wilson.low, wilson.high))
    none = mean_interval([0.0] * 50, 400)
    assert none.low == 0.0
    assert none.high == pytest.approx(1 - wilson.low)


def test_interval_of_equal_prompt_means_uses_all_rollouts():
    ours = mean_interval([0.5] * 10, 80)
    wilson = stats.binomtest(40, 80).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((wilson.low, wilson.high))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chances = rng.beta(1, 2, size=60)
        interval = mean_interval(rng.binomial(8, chances) / 8, 480)
        covered += interval.low <= 1 / 3 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("values", [[], [1.2], [-0.1, 0.5], [math.nan, 2.0]])
def test_interval_refuses_what_is_no_share(values):
    with pytest.raises(ValueError, match="interval"):
        mean_interval(values, 8)


def test_paired_test_equals_enumeration_by_hand():
    # Differences -0.5, -0.25, 0.125: means as low as theirs: only all-negative and the observed one.
    candidate, reference = [0.0, 0.5, 0.625], [0.5, 0.75, 0.5]
    differences = [-0.5, -0.25, 0.125]
    observed = sum(differences)
    flips = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((1, -1), repeat=3)
    ]
    expected = sum(flip <= observed for flip in flips) / len(flips)
    result = paired_test(candidate, reference, "test")
    assert result.p_value == pytest.approx(expected) == 2 / 8
    assert result.difference == pytest.approx(observed / 3)
    assert result.prompts == 3


def test_paired_interval_is_scipys():
    rng = np.random.default_rng(1)
    candidate, reference = rng.random(40), rng.random(40)
    expected = stats.ttest_rel(candidate, reference).confidence_interval()
    interval = paired_test(list(candidate), list(reference), "test").interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_paired_p_value_is_near_the_t_test_on_many_prompts():
    rng = np.random.default_rng(2)
    reference = rng.random(200)
    candidate = reference - 0.03 + 0.2 * rng.standard_normal(200)
    expected = stats.ttest_rel(candidate, reference, alternative="less").pvalue
    assert paired_test(list(candidate), list(reference), "test").p_value == pytest.approx(expected, abs=0.01)


def test_paired_test_is_seeded_and_one_sided():
    rng = np.random.default_rng(3)
    worse, better = list(rng.random(50) * 0.5), list(rng.random(50))
    assert paired_test(worse, better, "a") == paired_test(worse, better, "a")
    assert paired_test(worse, better, "a").p_value < 0.01
    assert paired_test(better, worse, "a").p_value > 0.99


def test_paired_test_of_a_checkpoint_with_itself():
    result = paired_test([0.5, 1.0], [0.5, 1.0], "test")
    assert (result.difference, result.p_value, result.interval) == (0.0, 1.0, Interval(0.0, 0.0))


@pytest.mark.parametrize(("candidate", "reference"), [([1.0], [1.0]), ([1.0, 0.0], [1.0]), ([], [])])
def test_paired_test_refuses_unpaired_prompts(candidate, reference):
    with pytest.raises(ValueError, match="paired test"):
        paired_test(candidate, reference, "test")


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_recovery_rate():
    assert recovery_rate(0.5, 0.7, 0.75) == pytest.approx(0.8)
    assert recovery_rate(0.5, 0.8, 0.75) == pytest.approx(1.2)
    assert recovery_rate(0.5, 0.4, 0.75) == pytest.approx(-0.4)
    assert recovery_rate(0.75, 0.8, 0.75) is None
