"""What a budget bought: curves and choices from plain samples, against values worked out by hand."""

from itertools import combinations
from statistics import fmean

import pytest

from cascade.environments.code.answers import Answer
from cascade.environments.competition.judging import Judgement, Trial
from cascade.test_time import scores
from cascade.test_time.refine import Verification
from cascade.test_time.requests import Mark
from cascade.test_time.scores import PlainAnswer, PlainProgram
from cascade.test_time.submit import Tried
from tests.test_time.test_submit import PROBLEM


def answer(content: str, truth: float, *given: float | None) -> PlainAnswer:
    return PlainAnswer(content, truth, tuple(Verification(score, "") for score in given))


def test_the_last_mark_within_a_budget_counts():
    marks = [Mark(1, 10, 100), Mark(2, 25, 250)]
    found = [scores.at_budget(marks, budget) for budget in (9, 10, 24, 25, 99)]
    assert found == [None, marks[0], marks[0], marks[1], marks[1]]
    assert scores.budgets(20) == [1, 2, 4, 8, 16, 20]
    assert scores.budgets(16) == [1, 2, 4, 8, 16]


def test_the_best_of_n_by_its_verifications():
    pool = [answer("a", 0, 1, 0), answer("b", 1, 1, 1), answer("c", 0, 0, 0), answer("", 0)]
    assert scores.best_of_n(pool, 2, 12, "x") == 1.0  # all four, at three responses each
    assert scores.best_of_n(pool, 2, 2, "x") == 0.0  # not one is paid for
    # One of four at random: b with chance 1/4; two of four: b is among them with chance 1/2.
    assert scores.best_of_n(pool, 2, 3, "x") == pytest.approx(0.25, abs=0.2)
    assert scores.best_of_n(pool, 2, 6, "x") == pytest.approx(0.5, abs=0.2)


def test_the_majority_of_answers():
    pool = [answer("a", 0), answer("b", 1), answer("b", 1), answer("", 0), answer("c", 0)]
    assert scores.majority(pool, 5, "x") == 1.0
    assert scores.majority([answer("", 0)], 1, "x") == 0.0
    assert scores.majority(pool, 0, "x") == 0.0


def test_pass_at_k_of_answers():
    pool = [answer("a", 1), answer("b", 0), answer("c", 0.5), answer("d", 0)]
    assert [scores.pass_at(pool, k) for k in (1, 2, 4, 9)] == pytest.approx([0.25, 0.5, 1.0, 1.0])
    assert scores.pass_at([], 3) == 0.0


def sample(code: str, passes: bool, behaviours: tuple[str, str, str], shares: tuple[float, ...]) -> PlainProgram:
    trial = Trial(passes, tuple((each,) for each in behaviours))
    return PlainProgram(Tried(code, Answer(code, "python"), trial), Judgement(shares, ("–",) * 3))


WRONG = sample("w", True, ("7", "7", "7"), (0.0, 0.0, 0.0))
LOOP = sample("l", True, ("1", "1", "!too slow"), (1.0, 1.0, 0.0))
LOOP2 = sample("l2", True, ("1", "1", "!too slow"), (1.0, 1.0, 0.0))
FORMULA = sample("f", True, ("1", "1", "1"), (1.0, 1.0, 1.0))
FAILS = sample("x", False, ("!wrong answer",) * 3, (0.0, 0.0, 0.0))


def test_choices_of_submissions():
    pool = [FAILS, PlainProgram(), WRONG, FAILS, LOOP, LOOP2, FORMULA]
    assert [scores.first_submitted(PROBLEM, pool, n) for n in (1, 2, 3, 4, 5)] == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert [scores.samples_passed(PROBLEM, pool, n) for n in (1, 2, 3, 4)] == [0.0, 0.5, 0.5, 1.0]
    # For subtask 3, with the most points, the wrong one and the formula are groups of one: the wrong one came first.
    # Then the formula, which solves all.
    assert [scores.largest_groups(PROBLEM, pool, n) for n in (1, 2)] == [0.0, 1.0]
    assert scores.largest_groups(PROBLEM, [LOOP, LOOP2, WRONG], 9) == 0.5
    assert scores.all_submitted(PROBLEM, pool, 0) == 1.0
    assert scores.all_submitted(PROBLEM, [PlainProgram()], 0) == 0.0


def test_a_choice_from_fewer_samples_is_averaged_over_draws():
    pool = [FAILS, WRONG, LOOP, FORMULA]
    exact = fmean(scores.first_submitted(PROBLEM, list(pair), 2) for pair in combinations(pool, 2))
    assert exact == pytest.approx((0 + 0.5 + 1 + 0.5 + 1 + 1) / 6)
    assert scores.expected(PROBLEM, pool, scores.first_submitted, 2, 2, "x") == pytest.approx(exact, abs=0.15)
    assert scores.expected(PROBLEM, pool, scores.first_submitted, 4, 4, "x") == 1.0
    again = scores.expected(PROBLEM, pool, scores.first_submitted, 2, 2, "x")
    assert again == scores.expected(PROBLEM, pool, scores.first_submitted, 2, 2, "x")


def test_the_difference_is_the_strategys_advantage():
    strategy = {str(i): 1.0 if i < 15 else 0.0 for i in range(20)}
    plain = {str(i): 1.0 if i < 5 else 0.0 for i in range(20)}
    found = scores.difference(strategy, plain, "x")
    assert found["difference"] == 0.5
    assert found["ci_low"] < 0.5 < found["ci_high"]
    assert found["p_value"] < 0.01
    assert scores.difference(plain, strategy, "x")["p_value"] > 0.99


def test_how_often_a_verifier_is_right():
    found = scores.calibration([(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.5, 0.0), (0.5, 1.0)])
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["by_score"]["1"] == {"verifications": 2, "right": 0.5}
    assert found["by_score"]["0.5"] == {"verifications": 2, "right": 0.5}
    assert found["by_score"]["0"] == {"verifications": 1, "right": 0.0}
    assert scores.calibration([]) == {"verifications": 0}
