"""Proofs: the checker on proofs made by hand, verifications, hostile answers, the generator's promises."""

import random
import re
import time

import pytest

from cascade import judges
from cascade.chat import Response, prompt_of
from cascade.environments.proofs import tasks
from cascade.environments.proofs.statements import find_fault, in_words
from cascade.environments.registry import get
from cascade.errors import CascadeError, RowError

PROOFS = get("proofs")
SUM = {"kind": "sum", "terms": [47, 30, -8, 9], "relation": ">", "bound": 70}
ORDER = {"kind": "order", "given": [["a", "b"], ["b", "c"], ["c", "d"], ["b", "x"]], "goal": ["a", "d"]}
RIGHT_SUM = "1. 77\n2. 69\n3. 78\n78 > 70"
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
    assert in_words(SUM) == "Prove that 47 + 30 - 8 + 9 > 70."
    assert in_words(ORDER) == "Given a < b, b < c, c < d, b < x. Prove that a < d."


@pytest.mark.parametrize(
    ("statement", "proof"),
    [
        (SUM, RIGHT_SUM),
        (SUM, f"\n{RIGHT_SUM}  \n\n"),
        (ORDER, RIGHT_ORDER),
        ({**SUM, "relation": "<", "bound": 79}, RIGHT_SUM.replace("> 70", "< 79")),
        ({"kind": "sum", "terms": [5, -9], "relation": "<", "bound": 0}, "1. -4\n-4 < 0"),
    ],
)
def test_right_proofs(statement, proof):
    assert find_fault(statement, proof) is None
    assert verdict(row(statement), proof).reward == 1.0


@pytest.mark.parametrize(
    ("statement", "proof", "step", "score", "words"),
    [
        (SUM, RIGHT_SUM.replace("69", "70"), 2, 0.0, "Step 2 is wrong: it must say 69."),
        # The first wrong step counts, whatever follows from it.
        (SUM, "1. 76\n2. 68\n3. 77\n77 > 70", 1, 0.0, "Step 1 is wrong: it must say 77."),
        (SUM, RIGHT_SUM.replace("2. 69", "2. 77 - 8 = 69"), 2, 0.0, "Step 2 is wrong: it cannot be read."),
        (SUM, RIGHT_SUM.replace("2. ", "1. "), 2, 0.0, "Step 1 is wrong: it is not next."),
        (SUM, RIGHT_SUM.replace("3. ", "4. "), 3, 0.0, "Step 4 is wrong: it is not next."),
        (SUM, f"0. 47\n{RIGHT_SUM}", 1, 0.0, "Step 0 is wrong: it is not next."),
        (SUM, "78 > 70", 1, 0.0, "The end is wrong: step 1 is left out."),
        (SUM, "1. 77\n77 > 70", 2, 0.0, "The end is wrong: step 2 is left out."),
        (SUM, RIGHT_SUM.replace("> 70", "> 77"), 4, 0.0, "The end is wrong: it must say > 70."),
        (SUM, RIGHT_SUM.replace("> 70", "< 79"), 4, 0.0, "The end is wrong: it must say > 70."),
        (SUM, RIGHT_SUM.replace("78 >", "77 >"), 4, 0.0, "The end is wrong: the total is 78."),
        (SUM, f"{RIGHT_SUM}\n78 > 70", 5, 0.0, "It does not end there"),
        (SUM, RIGHT_SUM.replace("2. ", ""), 2, 0.0, "it cannot be read"),
        (SUM, "47 + 30 - 8 + 9 = 78 > 70", 1, 0.0, "it cannot be read"),
        (SUM, f"1. {'9' * 5000}", 1, 0.0, "it cannot be read"),
        (SUM, RIGHT_SUM.replace("77", "\u0667\u0667"), 1, 0.0, "it cannot be read"),
        ({**SUM, "bound": 78}, RIGHT_SUM.replace("> 70", "> 78"), 4, 0.0, "it is not true"),
        (SUM, "\n".join(RIGHT_SUM.split("\n")[:3]), 4, 0.5, "The end is missing"),
        (SUM, "", 1, 0.5, "The end is missing"),
        (SUM, "2. 69\n3. 78\n78 > 70", 1, 0.5, "Step 1 is left out."),
        # What is wrong counts before what is left out.
        (SUM, "2. 69\n3. 79\n79 > 70", 2, 0.0, "Step 3 is wrong: it must say 78."),
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


@pytest.mark.parametrize(("proof", "score"), [(RIGHT_SUM, 1.0), (RIGHT_SUM.replace("69", "70"), 0.0), ("1. 77", 0.5)])
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
        ({"statement": {"kind": "sum", "terms": [1], "relation": "<", "bound": 3}}, "bad_statement"),
        ({"statement": {"kind": "sum", "terms": [1, 2.5], "relation": "<", "bound": 3}}, "bad_statement"),
        ({"statement": {"kind": "order", "given": [["a"]], "goal": ["a", "b"]}}, "bad_statement"),
        ({"statement": {"kind": "sum", "terms": [1] * 201, "relation": "<", "bound": 3}}, "bad_statement"),
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
           "1. " + "7" * 100_000, "1. 77\n" * 50_000, "1. " + "a" * 100_000 + " < b",
           "1. ٧٧\n2. ٦٩\n3. ٧٨\n٧٨ > ٧٠"]  # fmt: skip


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
    """It finds no fault in a right proof, and in others ends with the first step that is wrong or left out."""
    rng = random.Random(level)
    for _ in range(200):
        made = tasks.make_task(rng, level)
        fault = find_fault(made.fields["statement"], made.fields["proof"])
        *before, last = made.reasoning.split("\n")
        assert all(re.fullmatch(r".*: \d - \d = 0(, \d - \d = 0)?", line) for line in before)
        differs = re.search(r": (\d - \d = 0, )?\d - \d = -?[1-9]$", last) is not None
        left_out = fault is not None and (fault.score == 0.5 or "left out" in fault.words)
        assert ("left out" in last) == left_out
        assert differs == (fault is not None and not left_out)


def test_totals_are_compared_step_by_step():
    statement = {"kind": "sum", "terms": [77, -8, 5, 6], "relation": "<", "bound": 90}
    right = [
        "1. 69: 77 - 8 = 69: 6 - 6 = 0, 9 - 9 = 0",
        "2. 74: 69 + 5 = 74: 7 - 7 = 0, 4 - 4 = 0",
        "3. 80: 74 + 6 = 80: 8 - 8 = 0, 0 - 0 = 0",
    ]
    assert tasks._sum_notes(statement, ["1. 69", "2. 74", "3. 80", "80 < 90"]) == [
        *right,
        "80 < 90: 80: 8 - 8 = 0, 0 - 0 = 0",
    ]
    assert tasks._sum_notes(statement, ["1. 69", "2. 74", "3. 80"]) == [*right, "left out: 80 < 90"]
    assert tasks._sum_notes(statement, ["1. 69", "2. 74", "3. 80", "26 < 90"]) == [*right, "26 < 90: 80: 2 - 8 = -6"]
    wrong = [right[0], "2. 73: 69 + 5 = 74: 7 - 7 = 0, 3 - 4 = -1"]
    assert tasks._sum_notes(statement, ["1. 69", "2. 73", "3. 80", "80 < 90"]) == wrong
    gap = [right[0], "2. left out: 69 + 5 = 74"]
    assert tasks._sum_notes(statement, ["1. 69", "3. 80", "80 < 90"]) == gap


@pytest.mark.parametrize(
    ("total", "term", "parts"),
    [
        (77, -18, "77 - 10 = 67 - 8"),
        (47, 38, "47 + 30 = 77 + 8"),
        (47, 30, "47 + 30"),
        (77, -8, "77 - 8"),
        (21, 6, "21 + 6"),
        (77, -30, "77 - 30"),
    ],
)
def test_who_verifies_adds_tens_and_then_ones(total, term, parts):
    assert tasks._in_parts(total, term) == parts
    statement = {"kind": "sum", "terms": [total, term], "relation": "<", "bound": 99}
    value = total + term
    first, _ = tasks._sum_notes(statement, [f"1. {value}", f"{value} < 99"])
    assert first.startswith(f"1. {value}: {parts} = {value}: ")


def test_the_numbers_of_a_sum_are_told_apart_by_their_last_digits():
    for level in (3, 4):
        for found in PROOFS.generate(100, 6, level):
            terms = found["statement"]["terms"]
            assert len({abs(term) % 10 for term in terms}) == len(terms)
            assert all(10 < abs(term) < 50 for term in terms[1:])


@pytest.mark.parametrize(
    ("claim", "value", "differences"),
    [
        ("69", "69", "6 - 6 = 0, 9 - 9 = 0"),
        ("79", "69", "7 - 6 = 1"),
        ("70", "71", "7 - 7 = 0, 0 - 1 = -1"),
        ("9", "10", "0 - 1 = -1"),
        ("7", "7", "7 - 7 = 0"),
    ],
)
def test_digits_are_compared_in_pairs(claim, value, differences):
    assert tasks._compared(claim, value) == differences


def test_the_better_proof_keeps_the_steps_before_the_fault_and_takes_the_wrong_one_from_the_critique():
    statement = {"kind": "sum", "terms": [77, -18, 15, 6], "relation": "<", "bound": 90}
    working = ["77 - 18 = 59, 1. 59", "59 + 15 = 74, 2. 74", "74 + 6 = 80, 3. 80"]
    right = ["1. 59", "2. 74", "3. 80", "80 < 90"]
    assert tasks._working(statement) == working
    assert tasks._working_left(statement, "1. 59\n2. 84\n3. 90\n90 < 90", right) == ["2. 74", working[2]]
    assert tasks._working_left(statement, "1. 59\n3. 80\n80 < 90", right) == working[1:]
    assert tasks._working_left(statement, "1. 59", right) == working[1:]
    assert tasks._working_left(statement, "1. 59\n2. 74\n3. 80", right) == []


def test_a_refinement_begins_with_the_critique():
    for level in (21, 24, 28):
        for found in PROOFS.generate(50, 3, level):
            prompt = found["responses_create_params"]["input"][0]["content"]
            words = re.search(r"What reviewers say:\n- (.*)\n", prompt)[1]
            assert found["demonstration"]["reasoning"].split("\n")[0] == words


def test_no_equation_of_a_proof_can_be_copied():
    for level in (2, 13, 23):
        for found in PROOFS.generate(50, 2, level):
            prompt = found["responses_create_params"]["input"][0]["content"]
            assert "=" not in prompt
