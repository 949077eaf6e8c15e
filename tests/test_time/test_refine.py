"""Generate–verify–refine: who is verified, refined and accepted, on tables made by hand and with a simulated model."""

import re
from random import Random
from statistics import fmean

import pytest

from cascade.environments.proofs.wording import critique, score_of, words_of
from cascade.recipe.sections import GenerateVerifyRefine
from cascade.test_time.budget import Ledger
from cascade.test_time.refine import (
    Candidate,
    Verification,
    chosen_critiques,
    final_grade,
    generate_verify_refine,
    is_accepted,
    new_round,
    ranked,
    to_refine,
)
from cascade.test_time.requests import Generate, Generated, Outcome, Stopped


def candidate(key: str, *scores: float | None, content: str = "proof") -> Candidate:
    return Candidate(key, 1, content, [Verification(score, f"{key} {score}") for score in scores])


def settings(**changed) -> GenerateVerifyRefine:
    small = {"candidates": 4, "verifications": 2, "keep": 2, "critiques": 2, "refinements": 2, "rounds": 3}
    return GenerateVerifyRefine(name="generate-verify-refine", **{**small, **changed})


def drive(search, answer) -> tuple[list[list[Generate]], Outcome]:
    """Run a search with `answer(request)` as its model: what was asked, step by step, and its outcome."""
    asked = []
    try:
        requests = next(search)
        while True:
            asked.append(requests)
            requests = search.send([answer(request) for request in requests])
    except StopIteration as end:
        return asked, end.value


def said(text: str, finished: bool = True) -> Generated:
    return Generated(text, 10, finished)


def test_the_ranking_of_a_table():
    table = [
        candidate("a", 0, 0.5),  # 0.25
        candidate("b", 1, 0.5),  # 0.75
        candidate("c", None, None),  # no rating
        candidate("d", 1, 0.5, content="qed"),  # 0.75, and shorter
        candidate("e", 1, None),  # 1
        candidate("f", 0.5, 1),  # 0.75, as b
    ]
    assert [each.key for each in ranked(table)] == ["e", "d", "b", "f", "a", "c"]


def test_of_equal_ratings_the_latest_round_is_refined():
    table = [candidate("a", 0), candidate("b", 0, 0.5), candidate("c", 0), candidate("d", None)]
    table[2].round = table[3].round = 2
    assert [each.key for each in to_refine(table, 2)] == ["b", "c"]
    assert [each.key for each in to_refine(table, 4)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("scores", "accepted"),
    [
        ((1, 1, 1, 1), True),
        ((1, 1, 1, 0.5), False),
        ((1, 1, 1, None), True),
        ((1, 1, None, None), False),  # most gave no score
        ((), False),
    ],
)
def test_who_is_accepted(scores, accepted):
    assert is_accepted(candidate("a", *scores), 0.99999) == accepted


def test_a_lower_threshold_accepts_a_mean():
    assert is_accepted(candidate("a", 1, 1, 1, 0.5), 0.875)
    assert not is_accepted(candidate("a", 1, 1, 1, 0.5), 0.876)


def test_critiques_come_lowest_first_each_once():
    verifications = [
        Verification(1.0, "fine"),
        Verification(0.5, "a gap"),
        Verification(0.0, "wrong at 2"),
        Verification(None, "unreadable"),
        Verification(0.0, "wrong at 2"),
        Verification(0.0, "wrong at 3"),
        Verification(0.0, ""),
    ]
    assert chosen_critiques(verifications, 3) == ["wrong at 2", "wrong at 3", "a gap"]
    assert chosen_critiques(verifications, 8) == ["wrong at 2", "wrong at 3", "a gap", "fine"]
    assert chosen_critiques(verifications, 8, per_score=1) == ["wrong at 2", "a gap", "fine"]
    assert chosen_critiques(verifications, 1, per_score=4) == ["wrong at 2"]


@pytest.mark.parametrize(
    ("scores", "grade"),
    [([1, 1, 1], 1.0), ([1, 0.5], 0.75), ([1, 1, 1, 0], 0.0), ([1, None], 1.0), ([None], None), ([], None)],
)
def test_any_zero_is_a_zero(scores, grade):
    assert final_grade(scores) == grade


def test_the_best_are_refined_once_each_before_any_is_refined_again():
    order = [(each.key, number) for each, number in new_round([candidate("a"), candidate("b")], 2)]
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_the_scores_that_are_read():
    for text, score in {
        critique("Step 2 is wrong: 3.", 0.0): 0.0,
        critique("Every step holds.", 1.0): 1.0,
        "so \\boxed{0.5}": 0.5,
        "\\boxed{\\frac12}": 0.5,
        "\\boxed{1/2}": 0.5,
        "\\boxed{1} no, \\boxed{0}": 0.0,
        "\\boxed{2}": None,
        "\\boxed{0.75}": None,
        "1": None,
        "\\boxed{": None,
        "\\boxed{" * 2000: None,
    }.items():
        assert score_of(text) == score, text
    assert words_of(critique("Step 2\nis wrong.", 0.0)) == "Step 2 is wrong."


def test_the_rounds_of_a_search():
    """Answers a b a c: the second a is not verified; c, with 1 and 0.5, and a, with 0.5 and 0.5, are refined."""
    texts = iter(["a", "b", "a", "c", "d", "e", "f", "g"])
    table = {"a": (0.5, 0.5), "b": (0, 0), "c": (1, 0.5), "d": (0, 0), "e": (1, 0.5), "f": (1, 1), "g": (0, 0)}

    def model(request: Generate) -> Generated:
        if request.role != "verify":
            return said(next(texts))
        shown = re.search(r"Answer:\n(\w)", request.prompt)[1]
        return said(critique(f"about {shown}", table[shown][int(request.key[-1])]))

    asked, outcome = drive(generate_verify_refine("P", settings(), Ledger(100), [0], [0]), model)
    assert [[request.role for request in step] for step in asked] == [
        ["write"] * 4,
        ["verify"] * 6,
        ["refine"] * 4,
        ["verify"] * 8,
    ]
    refined = [re.search(r"earlier answer:\n(\w)", request.prompt)[1] for request in asked[2]]
    assert refined == ["c", "a", "c", "a"]
    assert "- about c" in asked[2][0].prompt
    assert (outcome.answer, outcome.reason, outcome.facts["rating"]) == ("f", "accepted", 1.0)
    assert [(mark.round, mark.generations, mark.tokens, mark.key) for mark in outcome.marks] == [
        (1, 10, 100, "r1/c3"),
        (2, 22, 220, "r2/c2w0"),
    ]


def test_unfinished_and_empty_answers_are_not_verified():
    answers = iter([said("a", finished=False), said(""), said("b"), said("a", finished=False)])

    def model(request: Generate) -> Generated:
        return next(answers) if request.role == "write" else said(critique("good", 1.0))

    asked, outcome = drive(generate_verify_refine("P", settings(), Ledger(100), [0], [0]), model)
    assert [request.key for request in asked[1]] == ["r1/c2/v0", "r1/c2/v1"]
    assert outcome.answer == "b"


def test_without_a_rated_answer_the_next_round_begins_anew():
    asked, outcome = drive(
        generate_verify_refine("P", settings(rounds=2), Ledger(100), [0], [0]),
        lambda request: said("x", finished=request.role == "verify"),
    )
    assert [step[0].role for step in asked] == ["write", "write"]
    assert (outcome.answer, outcome.reason) == ("", "rounds")


@pytest.mark.parametrize(
    ("generations", "steps", "reason"),
    [
        (2, [], "budget"),
        (3, [1, 2], "budget"),
        (12, [4, 8], "budget"),
        (17, [4, 8, 1, 2], "budget"),
        (36, [4, 8] * 3, "rounds"),
    ],
)
def test_the_budget_of_generations_is_hard(generations, steps, reason):
    ledger = Ledger(100, generations=generations)
    numbers = iter(range(100))

    def model(request: Generate) -> Generated:
        return said(critique("no", 0.5)) if request.role == "verify" else said(f"p{next(numbers)}")

    asked, outcome = drive(generate_verify_refine("P", settings(), ledger, [0], [0]), model)
    assert ([len(step) for step in asked], outcome.reason) == (steps, reason)
    assert ledger.spent_generations <= generations


def test_the_budget_of_tokens_counts_what_a_response_may_take():
    # 100 tokens each at most: 12 responses need 1,200 and use 10 each; then 1,080 are left, enough for 3 × 3.
    ledger = Ledger(100, tokens=1200)
    numbers = iter(range(100))
    asked, _ = drive(
        generate_verify_refine("P", settings(rounds=2), ledger, [0], [0]),
        lambda r: said(critique("no", 0.5)) if r.role == "verify" else said(f"p{next(numbers)}"),
    )
    assert [len(step) for step in asked] == [4, 8, 3, 6]
    assert ledger.spent_tokens == 210


def test_a_search_that_is_stopped_returns_the_best_so_far():
    search = generate_verify_refine("P", settings(), Ledger(100), [0], [0])
    requests = next(search)
    requests = search.send([said(f"p{number}") for number in range(4)])
    scores = {"p2": (1.0, 0.5)}
    requests = search.send(
        [
            said(critique("x", scores.get(request.prompt.split("\n")[3], (0.5, 0.5))[i % 2]))
            for i, request in enumerate(requests)
        ]
    )
    assert requests[0].role == "refine"
    with pytest.raises(StopIteration) as end:
        search.throw(Stopped())
    assert (end.value.value.reason, end.value.value.answer) == ("stopped", "p2")


def test_several_checkpoints_write_and_verify_in_turn():
    asked, _ = drive(
        generate_verify_refine("P", settings(candidates=2, rounds=1), Ledger(100), [0, 1], [0, 2]),
        lambda r: said(critique("x", 0.5)) if r.role == "verify" else said(r.key),
    )
    assert [request.checkpoint for request in asked[0]] == [0, 1, 0, 1]
    assert [request.checkpoint for request in asked[1]] == [0, 2] * 4


class Prover:
    """A model of known success rates: a proof has `steps` steps, each right with chance `step`; a verifier finds the
    first wrong one with chance `verify`, and a refinement keeps what is before it. It says how many are right."""

    def __init__(self, seed: int, steps: int = 6, step: float = 0.7, verify: float = 0.9):
        self.rng, self.steps, self.step, self.verify = Random(seed), steps, step, verify
        self.number = 0

    def __call__(self, request: Generate) -> Generated:
        if request.role == "verify":
            right = int(re.search(r"Answer:\n\d+/(\d+)", request.prompt)[1])
            truth = 1.0 if right == self.steps else 0.0
            score = truth if self.rng.random() < self.verify else 1 - truth
            return said(critique(f"wrong at {right + 1}" if score == 0 else "holds", score))
        kept = 0
        if request.role == "refine":
            found = re.search(r"wrong at (\d+)", request.prompt)
            kept = min(int(found[1]), self.steps) if found else 0
        while kept < self.steps and self.rng.random() < self.step:
            kept += 1
        self.number += 1
        return said(f"{self.number}/{kept}")


def test_refinement_beats_plain_sampling_of_a_simulated_model():
    """From scratch 0.7^6 = 12 % of proofs are right, so of 6 verified ones (30 responses, as three rounds have) at most
    1 − 0.88^6 = 53 % of problems have one; a refinement repairs the first wrong step."""
    rounds = settings(candidates=2, verifications=4, keep=1, refinements=2, rounds=3)
    solved, plain = [], []
    for seed in range(200):
        _, outcome = drive(generate_verify_refine("P", rounds, Ledger(100), [0], [0]), Prover(seed))
        solved.append(outcome.answer.endswith("/6"))
        once = settings(candidates=6, verifications=4, keep=1, refinements=2, rounds=1)
        _, outcome = drive(generate_verify_refine("P", once, Ledger(100), [0], [0]), Prover(seed))
        plain.append(outcome.answer.endswith("/6"))
    assert fmean(plain) == pytest.approx(1 - (1 - 0.7**6) ** 6, abs=0.09)
    assert fmean(solved) > fmean(plain) + 0.15
