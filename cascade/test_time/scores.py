"""What a budget bought: a strategy's score by what it had spent, beside choices from plain samples of the same budget.

A choice from n of the plain samples is averaged over `DRAWS` draws of n of them, so it is the choice's expected score.
Scores lie in [0, 1]; a problem is the unit of intervals and tests.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

from cascade.environments.competition.judging import Judgement
from cascade.environments.competition.problems import Problem
from cascade.evaluation.statistics import SOLVED, mean_interval, paired_test, pass_at_k
from cascade.test_time.refine import Candidate, Verification, ranked
from cascade.test_time.requests import Mark
from cascade.test_time.submit import State, Tried, selected, unsolved
from cascade.utils.seeds import derive_seed

DRAWS = 60

Scores = dict[str, float]
"""Problem → score."""


def at_budget(marks: Sequence[Mark], generations: int) -> Mark | None:
    """The last mark within the budget; None before the first one."""
    within = [mark for mark in marks if mark.generations <= generations]
    return within[-1] if within else None


def budgets(most: int) -> list[int]:
    """1, 2, 4, … and the largest."""
    return sorted({2**power for power in range(most.bit_length())} | {most})


@dataclass(frozen=True)
class PlainAnswer:
    """A plain sample of a problem in words. `content` is empty where it is not finished; `truth` is its reward."""

    content: str
    truth: float
    verifications: tuple[Verification, ...] = ()


def best_of_n(answers: Sequence[PlainAnswer], verifications: int, budget: int, *seed_keys: int | str) -> float:
    """The truth of the answer with the best rating, of as many as the budget pays for with their verifications."""
    verified = [answer for answer in answers if answer.verifications or not answer.content]
    count = min(budget // (1 + verifications), len(verified))
    return _averaged(verified, count, _rated_best, *seed_keys)


def _rated_best(answers: list[PlainAnswer]) -> float:
    candidates = [
        Candidate(str(number), 0, answer.content, list(answer.verifications))
        for number, answer in enumerate(answers)
        if answer.content
    ]
    return answers[int(ranked(candidates)[0].key)].truth if candidates else 0.0


def majority(answers: Sequence[PlainAnswer], budget: int, *seed_keys: int | str) -> float:
    """The truth of the answer that is given most often, of equal ones the first."""
    return _averaged(answers, min(budget, len(answers)), _most_frequent, *seed_keys)


def _most_frequent(answers: list[PlainAnswer]) -> float:
    counts = Counter(answer.content for answer in answers if answer.content)
    if not counts:
        return 0.0
    wanted = counts.most_common(1)[0][0]
    return next(answer.truth for answer in answers if answer.content == wanted)


def pass_at(answers: Sequence[PlainAnswer], budget: int) -> float:
    """The chance that one of them is right: what a choice that knows the truth would reach."""
    right = sum(answer.truth >= SOLVED for answer in answers)
    return pass_at_k(len(answers), right, min(budget, len(answers))) if answers and budget else 0.0


@dataclass(frozen=True)
class PlainProgram:
    """A plain sample of a problem with subtasks: None where it has no program, or that could not be judged."""

    tried: Tried | None = None
    judgement: Judgement | None = None


Choice = Callable[[Problem, list[PlainProgram], int], float]
"""(problem, samples, submissions) → the score that these submissions earn."""


def expected(
    problem: Problem, samples: Sequence[PlainProgram], choice: Choice, budget: int, submissions: int, *keys: int | str
) -> float:
    """The choice's score with `budget` samples and so many submissions."""
    return _averaged(samples, min(budget, len(samples)), lambda drawn: choice(problem, drawn, submissions), *keys)


def first_submitted(problem: Problem, samples: list[PlainProgram], submissions: int) -> float:
    """The programs are submitted as they come, equal ones once."""
    return _earned(problem, _distinct(samples)[:submissions])


def samples_passed(problem: Problem, samples: list[PlainProgram], submissions: int) -> float:
    """Of those that pass the public samples, as they come."""
    passing = [each for each in _distinct(samples) if each.tried and each.tried.trial and each.tried.trial.passes]
    return _earned(problem, passing[:submissions])


def largest_groups(problem: Problem, samples: list[PlainProgram], submissions: int) -> float:
    """Majority vote: as a round of generate–select–submit, submissions of which go on until they are used up."""
    state = State(problem, [0.0] * len(problem.subtasks))
    tried = [each.tried for each in samples if each.tried and each.judgement]
    judgement_of = {each.tried.key: each.judgement for each in samples if each.tried}
    while submissions > 0:
        for target in unsolved(state):
            chosen = selected(tried, target, state.refused.get(target, set()), 1)
            if chosen:
                break
        else:
            break
        judgement = judgement_of[chosen[0].key]
        assert judgement is not None
        state.record(target, chosen[0], judgement)
        submissions -= 1
    return state.score


def all_submitted(problem: Problem, samples: list[PlainProgram], submissions: int) -> float:
    """pass@k: without a limit on submissions."""
    return _earned(problem, samples)


def _distinct(samples: list[PlainProgram]) -> list[PlainProgram]:
    by_code: dict[str, PlainProgram] = {}
    for each in samples:
        if each.tried is not None and each.judgement is not None:
            by_code.setdefault(each.tried.program.code, each)
    return list(by_code.values())


def _earned(problem: Problem, submitted: list[PlainProgram]) -> float:
    judged = [each.judgement.shares for each in submitted if each.judgement is not None]
    best = [max(shares) for shares in zip(*judged, strict=True)] if judged else [0.0] * len(problem.subtasks)
    return sum(share * each.points for share, each in zip(best, problem.subtasks, strict=True)) / problem.points


def _averaged(items: Sequence[Any], count: int, value: Callable[[list[Any]], float], *keys: int | str) -> float:
    if count <= 0:
        return 0.0
    rng = Random(derive_seed("plain", *keys))
    if count == len(items) == 1:
        return value(list(items))
    return fmean(value(rng.sample(list(items), count)) for _ in range(DRAWS))


def with_interval(scores: Scores) -> dict[str, float]:
    """Mean over problems with a 95 % interval."""
    values = list(scores.values())
    interval = mean_interval(values, len(values))
    return {"score": fmean(values), "ci_low": interval.low, "ci_high": interval.high}


def difference(strategy: Scores, plain: Scores, *seed_keys: int | str) -> dict[str, float]:
    """Paired, over problems: mean of strategy − plain, its 95 % interval, and how often chance alone makes one this
    high."""
    names = list(strategy)
    test = paired_test([plain[name] for name in names], [strategy[name] for name in names], *seed_keys)
    return {
        "difference": 0.0 - test.difference,
        "ci_low": 0.0 - test.interval.high,
        "ci_high": 0.0 - test.interval.low,
        "p_value": test.p_value,
    }


def calibration(verified: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """(score of a verification, truth) → how often a verifier that says 1, or does not, is right; and for each score
    how many answers with it are right."""
    if not verified:
        return {"verifications": 0}
    by_score = {
        f"{score:g}": {
            "verifications": len(truths),
            "right": fmean(float(truth >= SOLVED) for truth in truths),
        }
        for score in (0.0, 0.5, 1.0)
        if (truths := [truth for found, truth in verified if found == score])
    }
    agree = fmean(float((score == 1) == (truth >= SOLVED)) for score, truth in verified)
    return {"verifications": len(verified), "accuracy": agree, "by_score": by_score}
