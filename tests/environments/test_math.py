import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.chat import Response
from cascade.environments.registry import environment_of, get
from cascade.errors import RowError

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "math_with_judge.jsonl"
MATH = get("math")


def reward(expected, answer):
    return MATH.verify({"expected_answer": expected}, Response(answer)).reward


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("32", "\\boxed{32}"),
        ("32", "\\boxed{ +32 }"),
        ("32", "first \\boxed{5}, then \\boxed{32}"),
        ("32", "\\boxed{32.0}"),
        ("\\(\\frac{333}{1997}\\)", "\\boxed{\\dfrac{333}{1997}}"),
        ("$\\sqrt{2}$", "\\boxed{2^{1/2}}"),
        ("1/2", "\\boxed{0.5}"),
        ("-3", "\\boxed{x=-3}"),
        ("x+1", "\\boxed{1+x}"),
        ("Yes", "\\boxed{\\text{Yes}}"),
        (7, "\\boxed{7}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}}"),
    ],
)
def test_equal_answers(expected, answer):
    assert reward(expected, answer) == 1.0


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("32", "32"),  # not in a box
        ("32", "\\boxed{}"),
        ("32", "\\boxed{32"),
        ("32", "\\boxed{32}, no: \\boxed{33}"),
        ("32", "\\boxed{-32}"),
        ("1/2", "\\boxed{0.51}"),
        ("x+1", "\\boxed{x+2}"),
        ("32", "\\boxed{\\text{thirty-two}}"),
    ],
)
def test_different_answers(expected, answer):
    assert reward(expected, answer) == 0.0


@pytest.mark.parametrize("inside", ["(" * 500, "{" * 400 + "}" * 400, "1+" * 3000 + "1"])
def test_answers_too_deep_or_too_long_to_parse_are_wrong(inside):
    assert reward("32", f"\\boxed{{{inside}}}") == 0.0


def test_an_answer_that_never_finishes_is_a_timeout_from_any_thread(monkeypatch):
    monkeypatch.setattr("cascade.environments.math.SECONDS", 1)
    verdicts = []

    def judge():
        verdicts.append(MATH.verify({"expected_answer": "32"}, Response("\\boxed{10^{10^{10}}!}")))

    thread = threading.Thread(target=judge)
    thread.start()
    thread.join(timeout=60)
    assert [verdict.failure for verdict in verdicts] == ["timeout"]


def test_threads_share_the_workers_without_mixing_up_their_answers():
    def judge(number):
        right = MATH.verify({"expected_answer": f"{number}/2"}, Response(f"\\boxed{{\\frac{{{number}}}{{2}}}}"))
        wrong = MATH.verify({"expected_answer": f"{number}/2"}, Response(f"\\boxed{{\\frac{{{number + 2}}}{{2}}}}"))
        return right.reward, wrong.reward

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(judge, range(1, 40, 2))) == {(1.0, 0.0)}


def test_gym_s_two_names_for_the_answer_are_known():
    MATH.check_row({"expected_result": "4"})
    with pytest.raises(RowError) as caught:
        MATH.check_row({"expected_answer": " "})
    assert caught.value.code == "no_answer"
    assert environment_of({"agent_ref": {"name": "math_with_judge_simple_agent"}}) is MATH


def test_gym_rows_load_and_tell_right_from_wrong():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        MATH.check_row(sample)
        expected = sample["expected_answer"].removeprefix("\\(").removesuffix("\\)")
        assert MATH.verify(sample, Response(f"\\boxed{{{expected}}}")).reward == 1.0
        assert MATH.verify(sample, Response("\\boxed{\\text{none}}")).reward == 0.0
        assert MATH.verify(sample, Response(f"no box {expected}")).reward == 0.0
