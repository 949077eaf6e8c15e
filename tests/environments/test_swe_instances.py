"""Rows of SWE-bench's, SWE-Gym's and NeMo Gym's form: what loads, what is refused, what an answer to them is worth."""

import json
from pathlib import Path

import pytest

from cascade.chat import Response
from cascade.commands.score import score_file
from cascade.environments.registry import environment_of, get
from cascade.environments.swe_agentless.tasks import render_block
from cascade.errors import RowError
from tests.environments.swe_rows import GOOD, IN_GYM, SOURCE, gym_row, row, swe_bench_row

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "swerl_gen.jsonl"
SWE = get("swe_agentless")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"problem_statement": None}, "no_instance"),
        ({"patch": {"search": "a"}}, "no_instance"),
        ({"files": {}}, "no_files"),
        ({"files": None}, "no_files"),
        ({"files": {"shop.py": 3}}, "no_files"),
        ({"files": "{"}, "no_files"),
        ({"files": {"../shop.py": ""}}, "bad_path"),
        ({"files": {"/shop.py": ""}}, "bad_path"),
        ({"FAIL_TO_PASS": []}, "no_tests_named"),
        ({"FAIL_TO_PASS": None}, "no_tests_named"),
        ({"FAIL_TO_PASS": "[1]"}, "no_tests_named"),
        ({"PASS_TO_PASS": "x"}, "no_tests_named"),
        ({"mode": "guess"}, "bad_mode"),
        ({"grade": "looks"}, "bad_mode"),
        ({"FAIL_TO_PASS": ["test_shop.py::test_none"]}, "bad_tests"),
        ({"tests": {"test_shop.py": "def"}}, "bad_tests"),
        ({"tests": {"test_shop.py": "def test_double():\n    assert 1"}}, "bad_tests"),
        ({"tests": {"test_shop.py": "def test_double():\n    assert 1 == f()"}}, "bad_tests"),
        ({"tests": {"test_shop.py": "def test_double():\n    return\n    assert f() == 1"}}, "bad_tests"),
    ],
)
def test_bad_rows_are_refused(changes, code):
    with pytest.raises(RowError) as caught:
        SWE.check_row(row(**changes))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_swe_bench_rows_load_and_their_tests_cannot_be_decided_here():
    sample = swe_bench_row(environment="swe_agentless", files={"src/shop.py": SOURCE, "checks/shop.txt": "1\n"})
    SWE.check_row(sample)
    found = SWE.verify(sample, Response(GOOD.replace("### shop.py", "### src/shop.py")))
    assert (found.reward, found.failure) == (None, "no_tests")
    assert found.extracted.startswith("diff --git a/src/shop.py b/src/shop.py\n")
    for path in ("src/shop.py", "src/shop_checks.py", "checks/shop.txt"):  # of the tests and of the test patch
        found = SWE.verify(sample, Response(render_block(path, "1", "2")))
        assert found.reward == 0.0, path


def test_gym_rows_ask_for_a_solution_and_their_form_can_be_scored():
    sample = gym_row()
    assert environment_of(sample) is SWE
    SWE.check_row(sample)
    found = SWE.verify(sample, Response(IN_GYM))
    assert (found.reward, found.failure) == (None, "no_tests")
    assert "shop.sif" in found.reason
    assert found.extracted.startswith("diff --git a/src/shop.py b/src/shop.py\n")  # without the repository's name
    form = gym_row(grade="form")
    assert SWE.verify(form, Response(IN_GYM)).reward == 1.0
    for answer in (
        IN_GYM.removeprefix("<solution>"),
        IN_GYM.replace("x * 3", "x * 7"),
        IN_GYM.replace("src/shop.py", "src/none.py"),
        IN_GYM.replace("src/shop.py", "src/shop_checks.py").replace("    return x * 3", "x"),
        "<solution></solution>",
        "",
    ):
        for asked in (sample, form):
            assert SWE.verify(asked, Response(answer)).reward == 0.0


def test_reproduction_scripts_are_read_but_not_run():
    script = "<solution>\n```python\nimport sys\nsys.exit(2)\n```\n</solution>"
    found = SWE.verify(gym_row("repro-gen"), Response(script))
    assert (found.reward, found.failure, found.extracted) == (None, "no_tests", "import sys\nsys.exit(2)")
    assert SWE.verify(gym_row("repro-gen", grade="form"), Response(script)).reward == 1.0
    for answer in ("", "sys.exit(2)", "<solution>", "```python\n```"):
        assert SWE.verify(gym_row("repro-gen"), Response(answer)).reward == 0.0


def test_gym_samples_load_and_the_golden_patch_has_the_right_form():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        assert environment_of(sample) is SWE
        SWE.check_row(sample)
        form = sample | {"grade": "form"}
        patch = f"<solution>\n```diff\n{sample['instance']['patch']}```\n</solution>"
        script = "<solution>\n```python\nimport sys\n```\n</solution>"
        good, bad = (patch, patch.replace("-", "- ")) if sample["mode"] == "eval" else (script, "import sys")
        assert SWE.verify(form, Response(good)).reward == 1.0
        assert SWE.verify(form, Response(bad)).reward == 0.0
        assert SWE.verify(sample, Response(good)).failure == "no_tests"
        assert SWE.verify(sample, Response(bad)).reward == 0.0


def test_a_file_of_rollouts_is_scored_for_its_form(tmp_path):
    def score(**changes):
        file = tmp_path / "rollouts.jsonl"
        rollouts = [gym_row(response=answer, **changes) for answer in (IN_GYM, "<think>x</think>" + IN_GYM, "no idea")]
        file.write_text("".join(json.dumps(rollout) + "\n" for rollout in rollouts))
        return score_file(file)

    assert score(grade="form").mean_reward == pytest.approx(2 / 3)
    undecided = score()
    assert (undecided.scored, undecided.failures) == (1, {"no_tests": 2})
