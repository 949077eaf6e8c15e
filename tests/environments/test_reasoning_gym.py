import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from cascade.chat import Response
from cascade.environments.reasoning_gym import scoring
from cascade.environments.registry import environment_of, get
from cascade.environments.synthetic.arithmetic import expression_steps, steps, sum_steps
from cascade.errors import RowError

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "reasoning_gym.jsonl"
GYM = get("reasoning_gym")


def library_row(family, **config):
    return dict(reasoning_gym.create_dataset(family, size=1, seed=1, **config)[0])


def test_where_python_keeps_no_bytecode_its_import_prints_nothing(tmp_path):
    for path in Path(importlib.util.find_spec("cellpylib").origin).parent.glob("*.py"):  # Its code, without bytecode.
        (tmp_path / "cellpylib").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "cellpylib")
    told = subprocess.run(
        [sys.executable, "-Bc", "import cascade.environments.reasoning_gym, cellpylib; print(cellpylib.__file__)"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == (f"{tmp_path}/cellpylib/__init__.py\n", "")


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        ("-4", "-4"),
        ("It is \\boxed{-4}.", "-4"),
        ("\\boxed{-4} then \\boxed{7}", "-4"),  # the first box, as in NeMo Gym
        ("\\boxed{7} <answer> -4 </answer>", "-4"),  # tags before boxes
        ("<answer>7</answer> <answer>-4</answer>", "-4"),
    ],
)
def test_where_the_answer_is_read(text, extracted):
    row = {"question": "4 - 1 - 7 =", "answer": "-4", "metadata": {"source_dataset": "chain_sum"}}
    verdict = GYM.verify(row, Response(text))
    assert verdict.extracted == extracted
    assert verdict.reward == 1.0


def test_partial_credit_of_a_family_is_nemo_gyms():
    row = {"question": "4 - 1 - 7 =", "answer": "-4", "metadata": {"source_dataset": "chain_sum"}}
    countdown = library_row("countdown")
    for asked, text, gyms in (
        (row, "so it is -4", 2 / 11),
        (row, "\\boxed{5}", 0.0),
        (countdown, "<answer>1 + 1</answer>", 0.05),
    ):
        assert GYM.verify(asked, Response(text)).reward == 0.0
        assert GYM.verify({**asked, "grading": "gym"}, Response(text)).reward == pytest.approx(gyms)


def test_every_family_of_the_library_that_has_an_answer_accepts_it():
    accepted, without_answer = 0, []
    for family in sorted(set(DATASETS) - {"composite"}):
        row = library_row(family)
        GYM.check_row(row)
        if row["answer"] is None:
            without_answer.append(family)
            continue
        verdict = GYM.verify(row, Response(f"<answer>{row['answer']}</answer>"))
        assert verdict.reward == pytest.approx(1.0), (family, verdict)
        accepted += 1
    assert accepted > 95
    assert len(without_answer) < 8


def test_every_scorer_that_evaluates_text_is_guarded():
    """Read from the library's source, so that a new release with another such family is noticed."""
    evaluating = set()
    for family, (dataset, _) in DATASETS.items():
        source = inspect.getsource(dataset.score_answer)
        if re.search(r"\b(eval|exec|parse_expr|sympify)\(", source):
            evaluating.add(family)
    guarded = scoring.EVALUATED | scoring.SYMBOLIC | set(scoring.ROW_FORMULAS)
    assert evaluating
    assert evaluating <= guarded


@pytest.mark.parametrize("family", sorted(scoring.EVALUATED | scoring.SYMBOLIC))
def test_code_in_an_answer_is_not_run(family, tmp_path):
    row = library_row(family)
    touched = tmp_path / "touched"
    for attack in (
        f"__import__('pathlib').Path({str(touched)!r}).touch()",
        f"[open({str(touched)!r}, 'w')]",
        f"sin('open({str(touched)!r}, \"w\")')",
        f"(lambda: open({str(touched)!r}, 'w'))()",
        f"open({str(touched)!r}, 'w')!",
    ):
        assert GYM.verify(row, Response(f"<answer>{attack}</answer>")).reward < 0.5
    assert not touched.exists()


def test_an_answer_that_never_finishes_is_a_timeout(monkeypatch):
    monkeypatch.setattr(scoring, "SECONDS", 1)
    verdict = GYM.verify(library_row("countdown"), Response("<answer>9**9**9**9</answer>"))
    assert verdict.failure == "timeout"


def test_code_in_a_row_is_refused_and_not_run(tmp_path):
    touched = tmp_path / "touched"
    row = library_row("number_sorting") | {"answer": f"[open({str(touched)!r}, 'w')]"}
    with pytest.raises(RowError) as caught:
        GYM.check_row(row)
    assert caught.value.code == "unsafe_row"
    assert not touched.exists()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({}, "bad_metadata"),
        ({"question": "?", "answer": "1", "metadata": {}}, "unknown_family"),
        ({"question": "?", "answer": "1", "metadata": {"source_dataset": "no_such"}}, "unknown_family"),
        ({"question": "?", "answer": "1", "metadata": {"source_dataset": "countdown"}}, "bad_row"),
        ({"question": "?", "answer": 1, "metadata": {"source_dataset": "chain_sum"}}, "bad_row"),
    ],
)
def test_bad_rows_are_refused(row, code):
    with pytest.raises(RowError) as caught:
        GYM.check_row(row)
    assert caught.value.code == code


def test_written_out_arithmetic():
    assert steps(47, "+", 38) == ["47 + 30 = 77", "77 + 8 = 85"]
    assert steps(52, "-", 38) == ["52 - 30 = 22", "22 - 8 = 14"]
    assert steps(5, "-", -38) == ["5 + 30 = 35", "35 + 8 = 43"]
    assert steps(47, "*", 6) == ["40 * 6 = 240", "7 * 6 = 42", "240 + 40 = 280", "280 + 2 = 282"]
    assert sum_steps([3, 4, 20]) == ["3 + 4 = 7", "7 + 20 = 27"]
    assert expression_steps("2 + 3 * -( 1 - 5 )") == [
        "1 - 5 = -4",
        "-(-4) = 4",
        "3 * 4 = 12",
        "2 + 10 = 12",
        "12 + 2 = 14",
    ]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_equation_in_a_trace_is_true(level):
    checked = 0
    for row in GYM.generate(200, seed=2, level=level):
        for left, right in re.findall(r"([-+*/() \d]*\d\)?) = (-?\d+)", row["demonstration"]["reasoning"]):
            assert eval(left) == int(right), row["demonstration"]["reasoning"]
            checked += 1
    assert checked > 200


def test_gym_rows_load_and_tell_right_from_wrong():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        GYM.check_row(sample)
        assert GYM.verify(sample, Response(f"\\boxed{{{sample['answer']}}}")).reward == 1.0
        assert GYM.verify(sample, Response("\\boxed{Nobody is anything.}")).reward < 0.5


def test_the_environment_is_found_by_gym_s_names():
    assert environment_of({"agent_ref": {"name": "reasoning_gym_simple_agent"}}) is GYM
