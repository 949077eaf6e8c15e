"""The simulation of regression checks: rewards as fitted, the rule through the function that decides, today's rule."""

import numpy as np
import pytest

from benchmarks.gate_power import (
    BENCHMARK,
    EARLIER,
    HELD_OUT,
    MOMENTS,
    ROLLOUTS,
    Domain,
    Run,
    World,
    confidence_sequence_ratio,
    coverage,
    fixed,
    simulate,
)


@pytest.fixture(scope="module")
def world() -> World:
    return World({name: Domain(*values) for name, values in MOMENTS.items()})


@pytest.mark.parametrize("name", ["math", "mcqa", "swe_agentic"])
def test_rewards_have_the_moments_that_they_are_fitted_to(name):
    rng, domain = np.random.default_rng(0), Domain(*MOMENTS[name])
    mean, within, same, other = MOMENTS[name]
    means = np.full(2, mean)
    rewards = domain.rewards(rng, domain.difficulty(rng, 2, 100_000), means) - mean
    assert rewards.mean() == pytest.approx(0.0, abs=0.006)
    assert (rewards[0, :, 0] * rewards[0, :, 1]).mean() == pytest.approx(within, abs=0.006)
    assert (rewards[0, :, 0] * rewards[1, :, 0]).mean() == pytest.approx(same, abs=0.012)
    assert (rewards[0, :, 0] * rewards[1, :, 1]).mean() == pytest.approx(other, abs=0.006)


def test_a_run_has_what_a_check_reads(world):
    run = Run(world, np.random.default_rng(0), {"math": 0.2})
    evaluations = run.evaluations()
    assert len(evaluations) == EARLIER + 1
    assert len(run.prompts("math")) == HELD_OUT
    assert len(evaluations["candidate"].of("math")) == BENCHMARK
    assert evaluations["candidate"].of("math")[0].rollouts == ROLLOUTS
    best = np.mean([evaluations[node].score("math") for node in world.earlier])
    assert evaluations["candidate"].score("math") == pytest.approx(best - 0.2, abs=0.1)


def test_the_check_is_seldom_wrong_and_finds_ten_points(world):
    equal = simulate(world, 40, "suite")
    assert equal["false_alarm"] <= 0.1
    assert equal["cleared"] > 0.9
    ten = simulate(world, 20, "suite ten", 0.10)
    assert ten["found"] >= 0.9
    assert ten["further"] < 6
    assert simulate(world, 5, "suite", budget=0.0)["further"] == 0


def test_the_best_of_many_by_the_tested_rollouts_is_too_good(world):
    """The bias that the halves avoid."""
    assert fixed(world, 150, "suite")["false_alarm"] > 0.15
    assert fixed(world, 150, "suite", selected=False)["false_alarm"] < 0.12


def test_the_bounds_cover_the_difference_at_all_looks(world):
    missed = coverage(world, 40)  # of ten domains
    assert missed["upper"] <= 0.02
    assert missed["lower"] <= 0.15


def test_an_always_valid_sequence_needs_more_rollouts():
    assert confidence_sequence_ratio(0.005, 0.1) == pytest.approx(1.49, abs=0.01)
