"""Real rows, where they are at hand. What they show is also tested on rows made in the other modules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.curation import build
from cascade.curation.filters import check_form
from cascade.curation.rows import parse
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal


def test_gsm8k_train_against_its_test_set(
    samples: Path, layout: Layout, tmp_path: Path, make_recipe: Callable[..., Recipe]
):
    common = {"domain": "math", "environment": "math"}
    recipe = make_recipe(
        {
            "test": {"path": str(samples / "gsm8k" / "test.jsonl"), **common, "benchmark": -1},
            "train": {"path": str(samples / "gsm8k" / "train.jsonl"), **common, "rl": -1},
        },
        max_tokens=1024,
    )
    report = build(recipe, layout, Journal(tmp_path / "journal.jsonl"))
    assert report["benchmark"]["kept"] == 1319
    assert report["rl"]["drawn"] == 7473
    assert report["rl"]["steps"]["form"]["rejected"] == {}
    # Two pairs of train problems and test problems are the same but for names and numbers.
    assert 1 <= sum(report["rl"]["steps"]["benchmarks"]["rejected"].values()) <= 10
    assert sum(report["rl"]["steps"]["duplicates"]["rejected"].values()) <= 10


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("code_gen", "code"),
        ("instruction_following", "instruction_following"),
        ("lc_niah", "long_context"),
        ("math_with_judge", "math"),
        ("mcqa", "mcqa"),
        ("reasoning_gym", "reasoning_gym"),
        ("structured_outputs", "structured_output"),
        ("swerl_gen", "swe_agentless"),
        ("workplace_assistant", "tool_calling"),
    ],
)
def test_nemo_gyms_rows_pass_the_filters(samples: Path, name: str, environment: str):
    lines = (samples / "gym" / f"{name}.jsonl").read_text().splitlines()
    rows = [parse(json.loads(line), "rl", name, environment, environment) for line in lines]
    assert [str(error) for error in check_form(rows) if error] == []
    assert {row.environment for row in rows} == {environment}


def test_comparisons_need_a_judge(samples: Path):
    lines = (samples / "gym" / "genrm_compare.jsonl").read_text().splitlines()
    errors = check_form([parse(json.loads(line), "rl", "genrm_compare", "chat", None) for line in lines])
    assert {error.code if error else None for error in errors} == {"no_judge"}
