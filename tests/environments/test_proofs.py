"""Proofs: the checker on proofs made by hand, verifications, hostile answers, the generator's promises."""

import random
import time

import pytest

from cascade import judges
from cascade.chat import Response, prompt_of
from cascade.environments.proofs import tasks
from cascade.environments.proofs.statements import find_fault, in_words
from cascade.environments.registry import get
from cascade.errors import CascadeError, RowError

PROOFS = get("proofs")
SUM = {"kind": "chain", "terms": [47, 30, -8, 9], "relation": ">", "bound": 70}
ORDER = {"kind": "order", "given": [["a", "b"], ["b", "c"], ["c", "d"], ["b", "x"]], "goal": ["a", "d"]}
RIGHT_SUM = "b = 47 + 30 = 77\nc = 77 - 8 = 69\nd = 69 + 9 = 78\n78 > 70"
RIGHT_ORDER = "1. a < b\n2. b < c so a < c\n3. c < d so a < d"


def row(statement: dict, **fields) -> dict:
    return {
        "responses_create_params": {"input": in_words(statement)},
        "environment": "proofs",
        "statement": statement,
        **fields,
    }


def verdict(fields: dict, content: str):
    PROOFS.check_row(fields)
    return PROOFS.verify(fields, Response(content))


def test_a_statement_in_words():
    assert in_words(SUM) == "Given a = 47, b = a + 30, c = b - 8, d = c + 9. Prove that d > 70."
    assert in_words(ORDER) == "Given a < b, b < c, c < d, b < x. Prove that a < d."


@pytest.mark.parametrize(
    ("statement", "proof"),
    [
        (SUM, RIGHT_SUM),
        (SUM, f"\n{RIGHT_SUM}  \n\n"),
        (ORDER, RIGHT_ORDER),
        ({**SUM, "relation": "<", "bound": 79}, RIGHT_SUM.replace("> 70", "< 79")),
        ({"kind": "chain", "terms": [5, -9], "relation": "<", "bound": 0}, "b = 5 - 9 = -4\n-4 < 0"),
    ],
)
def test_right_proofs(statement, proof):
    assert find_fault(statement, proof) is None
    assert verdict(row(statement), proof).reward == 1.0


@pytest.mark.parametrize(
    ("statement", "proof", "step", "score", "words"),
    [
        (SUM, RIGHT_SUM.replace("= 69", "= 70"), 2, 0.0, "c is wrong: 77 - 8 = 69."),
        (SUM, RIGHT_SUM.replace("c = 77", "c = 76"), 2, 0.0, "c is wrong: b is 77."),
        (SUM, RIGHT_SUM.replace("- 8", "- 9"), 2, 0.0, "c is wrong: c = b - 8."),
        (SUM, RIGHT_SUM.replace("c = ", "d = ", 1), 2, 0.0, "c is wrong: c = b - 8."),
        (SUM, RIGHT_SUM.replace("c = ", "b = ", 1), 2, 0.0, "c is wrong: b is not next."),
        (SUM, "b = 47 + 30 = 77\n77 > 70", 2, 0.0, "c is wrong: it is left out."),
        (SUM, RIGHT_SUM.replace("> 70", "> 77"), 4, 0.0, "The end is wrong: it must say > 70."),
        (SUM, RIGHT_SUM.replace("78 >", "77 >"), 4, 0.0, "The end is wrong: d is 78."),
        (SUM, f"{RIGHT_SUM}\n78 > 70", 5, 0.0, "It does not end there"),
        (SUM, RIGHT_SUM.replace("c = ", "2. c = ", 1), 2, 0.0, "it cannot be read"),
        (SUM, "47 + 30 - 8 + 9 = 78 > 70", 1, 0.0, "it cannot be read"),
        (SUM, f"b = 47 + {'9' * 5000} = 1", 1, 0.0, "it cannot be read"),
        ({**SUM, "bound": 78}, RIGHT_SUM.replace("> 70", "> 78"), 4, 0.0, "it is not true"),
        (SUM, "\n".join(RIGHT_SUM.split("\n")[:3]), 4, 0.5, "The end is missing"),
        (SUM, "", 1, 0.5, "The end is missing"),
        (SUM, "c = 47 + 30 - 8 = 69\nd = 69 + 9 = 78\n78 > 70", 1, 0.5, "b is left out."),
        # What is wrong counts before what is left out.
        (SUM, "c = 47 + 30 - 8 = 69\nd = 69 + 9 = 79\n79 > 70", 2, 0.0, "69 + 9 = 78"),
        (ORDER, "1. a < b\n2. b < d so a < d", 2, 0.0, "b < d is not given"),
        (ORDER, "1. a < b\n2. c < d so a < d", 2, 0.5, "leaves out steps"),
        (ORDER, "1. b < c\n2. c < d so a < d", 1, 0.5, "leaves out steps"),
        (ORDER, "1. a < b\n2. b < x so a < x", 3, 0.5, "The end is missing"),
        (ORDER, "1. a < b\n2. b < c so b < c", 2, 0.0, "it follows that a < c"),
        (ORDER, "1. a < b\n2. b < x so a < x\n3. c < d so a < d", 3, 0.0, "it must begin with x"),
        (ORDER, "1. a < d", 1, 0.0, "a < d is not given"),
    ],
)
def test_the_first_fault(statement, proof, step, score, words):
    fault = find_fault(statement, proof)
    assert fault is not None
    assert (fault.step, fault.score) == (step, score)
    assert words in fault.words
    assert verdict(row(statement), proof).reward == 0.0


@pytest.mark.parametrize(
    ("proof", "score"), [(RIGHT_SUM, 1.0), (RIGHT_SUM.replace("= 69", "= 70"), 0.0), ("b = 47 + 30 = 77", 0.5)]
)
def test_a_verification_is_right_where_its_score_is(proof, score):
    for given in (0.0, 0.5, 1.0):
        content = f"Words.\n\\boxed{{{given:g}}}"
        assert verdict(row(SUM, task="verify", proof=proof), content).reward == float(given == score)


def test_a_proof_in_prose_is_verified_by_the_score_that_its_row_has():
    prose = {"responses_create_params": {"input": "…"}, "environment": "proofs", "task": "verify", "score": 0.5}
    assert verdict(prose, "a gap: \\boxed{0.5}").reward == 1.0
    assert verdict(prose, "\\boxed{1}").reward == 0.0
    assert verdict(prose, "no score").reward == 0.0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"statement": SUM, "task": "invent"}, "bad_task"),
        ({}, "no_judge"),
        ({"statement": None}, "bad_statement"),
        ({"statement": {"kind": "chain", "terms": [1], "relation": "<", "bound": 3}}, "bad_statement"),
        ({"statement": {"kind": "chain", "terms": [1, 2.5], "relation": "<", "bound": 3}}, "bad_statement"),
        ({"statement": {"kind": "order", "given": [["a"]], "goal": ["a", "b"]}}, "bad_statement"),
        ({"statement": {"kind": "chain", "terms": [1] * 27, "relation": "<", "bound": 3}}, "bad_statement"),
        ({"statement": {"kind": "limit"}}, "bad_statement"),
        ({"statement": "1 + 1 > 1"}, "bad_statement"),
        ({"statement": SUM, "task": "verify"}, "bad_statement"),
        ({"task": "verify", "score": 0.7}, "bad_score"),
    ],
)
def test_bad_rows_are_refused(fields, code):
    with pytest.raises(RowError) as error:
        PROOFS.check_row({"responses_create_params": {"input": "x"}, **fields})
    assert error.value.code == code


HOSTILE = ["", "\x00\ud800", "1. " * 50_000, "1. a < b\n" * 50_000, "\\boxed{" * 5000, "9" * 100_000,
           "b = 1" + " + 1" * 50_000 + " = 2", "1. " + "a" * 100_000 + " < b", "b = ٤٧ + ٣٠ = ٧٧"]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_answers_are_wrong_and_cheap(content):
    began = time.process_time()
    for fields in (row(SUM), row(ORDER), row(SUM, task="verify", proof=content)):
        assert verdict(fields, content).reward == 0.0
    assert time.process_time() - began < 2


LEVELS = [task + level for task in (0, 10, 20) for level in range(1, 9)]


@pytest.mark.parametrize("level", LEVELS)
def test_demonstrations_are_right(level):
    for found in PROOFS.generate(80, seed=7, level=level):
        prompt_of(found)
        assert found["demonstration"]["reasoning"]
        assert verdict(found, found["demonstration"]["content"]).reward == 1.0, found


@pytest.mark.parametrize("level", [3, 8, 13, 18, 23])
def test_the_same_seed_gives_the_same_rows_and_more_of_them_only_append(level):
    few = list(PROOFS.generate(20, seed=3, level=level))
    assert list(PROOFS.generate(40, seed=3, level=level))[:20] == few
    assert {r["id"] for r in few}.isdisjoint(r["id"] for r in PROOFS.generate(20, seed=4, level=level))


def test_the_proofs_to_be_verified_are_of_every_kind():
    for level in (12, 17):
        scores = [found["demonstration"]["content"].rpartition("{")[2] for found in PROOFS.generate(300, 5, level)]
        assert {"0}", "0.5}", "1}"} == set(scores)
        assert all(scores.count(score) > 25 for score in set(scores))


def test_the_answer_to_another_statement_is_wrong():
    rows = list(PROOFS.generate(60, seed=8, level=2))
    other = [one["demonstration"]["content"] for one in rows[1:]]
    assert not any(PROOFS.verify(one, Response(content)).reward for one, content in zip(rows, other, strict=False))


@pytest.mark.parametrize("level", [0, 9, 10, 19, 20, 29, 31, -1])
def test_there_is_no_such_level(level):
    with pytest.raises(CascadeError, match="no level"):
        PROOFS.generate(1, 0, level)


def test_a_proof_in_prose_is_graded_by_the_judge(monkeypatch):
    asked = []

    class Grader:
        def grade(self, problem: str, proof: str) -> float:
            asked.append((problem, proof))
            if proof == "?":
                raise judges.JudgeError("judge_timeout", "too late")
            return 0.75

    prose = {"responses_create_params": {"input": "Prove it."}, "environment": "proofs"}
    monkeypatch.setattr(judges, "_proof", Grader())
    assert verdict(prose, "By induction.").reward == 0.75
    assert asked == [("Prove it.", "By induction.")]
    assert verdict(prose, "?").failure == "judge_timeout"
    assert verdict(prose, " ").reward == 0.0
    monkeypatch.setattr(judges, "_proof", None)
    assert PROOFS.verify(prose, Response("By induction.")).failure == "no_judge"


@pytest.mark.parametrize("level", [11, 12, 13, 14])
def test_the_reasoning_of_a_verification_does_every_step(level):
    """It finds no fault in a right proof, and in others none before the first one."""
    rng = random.Random(level)
    for _ in range(200):
        made = tasks.make_task(rng, level)
        fault = find_fault(made.fields["statement"], made.fields["proof"])
        doubted = [line for line in made.reasoning.split("\n") if not line.endswith(", right")]
        assert bool(doubted) == (fault is not None)
        if doubted and doubted[0].endswith("wrong"):
            assert fault.score == 0


def test_a_chain_is_compared_step_by_step():
    statement = {"kind": "chain", "terms": [77, -8, 5], "relation": "<", "bound": 90}
    notes = tasks._chain_notes(statement, ["b = 77 - 8 = 70", "c = 70 + 5 = 75", "75 < 90"])
    assert notes == ["77 - 8 = 69, b = 70 69, wrong", "70 + 5 = 75, c = 75 75, right", "75 < 90, right"]
