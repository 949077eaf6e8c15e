"""Two runs side by side, from a real MLflow store."""

import re

import pytest
from click.testing import CliRunner

from cascade.cli import main
from cascade.commands.compare import as_text, compare
from cascade.commands.compare.chart import draw
from cascade.decisions.gate import gate
from cascade.errors import CascadeError
from cascade.recipe import Recipe
from cascade.tracking import publish
from cascade.utils.files import hash_directory
from tests.evaluation.project import recipe_with_gate, share, write_evaluation
from tests.evaluation.tracked import SOLVED, run_pipeline


@pytest.fixture(scope="module")
def two_runs(module_layout, module_monkeypatch):
    layout, recipe = module_layout, recipe_with_gate()
    module_monkeypatch.setenv("CASCADE_RUN_ID", "first")
    run_pipeline(recipe, layout)
    module_monkeypatch.setenv("CASCADE_RUN_ID", "second")
    raw = recipe.model_dump(mode="json")
    raw["rl"]["rl"]["steps"] = 8
    run_pipeline(type(recipe).model_validate(raw), layout, {**SOLVED, "rl": (39, 25), "mopd": (36, 30)})
    return layout


def test_nodes_are_compared_prompt_by_prompt(two_runs):
    found = compare("first/rl", "second/rl", two_runs)
    ((one, two),) = [pair.scores for pair in found.pairs]
    assert (one.domain, one.first, one.second, one.prompts) == ("one", 35 / 40, 39 / 40, 40)
    # Four of forty prompts differ, each by 1: mean 0.1, standard error 0.3038 / √40, times t(39) = 2.0227.
    assert one.difference == pytest.approx(0.1)
    assert one.interval.low == pytest.approx(0.1 - 0.0972, abs=1e-4)
    assert one.interval.high == pytest.approx(0.1 + 0.0972, abs=1e-4)
    assert (two.difference, two.interval.low, two.interval.high) == (0, 0, 0)
    assert [what for what, _, _ in found.settings] == ["recipe_hash", "steps"]
    assert found.settings[1] == ("steps", "4", "8")
    assert found.hashes == []  # the same data and the same start
    assert [(c.first, c.second) for c in found.costs] == [((37.5, 3000), (37.5, 3000))]


def test_pipelines_are_compared_node_by_node(two_runs):
    found = compare("first", "second", two_runs)
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("first/sft", "second/sft"),
        ("first/rl", "second/rl"),
        ("first/mopd", "second/mopd"),
    ]
    assert ("rl.steps", "4", "8") in found.settings
    assert {what for what, _, _ in found.hashes} == {"mopd.start", "mopd.teacher of one"}
    text = "\n".join(as_text(found))
    assert "one     87.5  97.5  +10.0  [+0.3, +19.7]  40" in text
    assert "only in" not in text


def test_other_prompts_have_no_interval(layout, recipe, monkeypatch):
    monkeypatch.setenv("CASCADE_RUN_ID", "first")
    run_pipeline(recipe, layout)
    monkeypatch.setenv("CASCADE_RUN_ID", "second")
    run_pipeline(recipe, layout)
    write_evaluation(layout, "sft", {"one": share(10, prompts=20), "two": share(30)}, _hash_of(layout, "sft"))
    publish(recipe, layout, ["sft"])
    one = compare("first/sft", "second/sft", layout).pairs[0].scores[0]
    assert (one.difference, one.interval, one.prompts) == (0.0, None, 0)
    assert "not the same" in "\n".join(as_text(compare("first/sft", "second/sft", layout)))


def _hash_of(layout, node):
    return hash_directory(layout.checkpoint(node))


def test_two_nodes_of_this_project_may_be_named_alone(two_runs):
    found = compare("sft", "mopd", two_runs)
    assert (found.first, found.second) == ("second/sft", "second/mopd")
    assert [score.second for score in found.pairs[0].scores] == [36 / 40, 30 / 40]
    assert ("start", f"base {_hash_of(two_runs, 'base')}") in [(what, first) for what, first, _ in found.hashes]


def test_runs_that_cannot_be_compared_are_said_in_one_line(two_runs):
    for names, message in [
        (
            ("first", "nothing"),
            r"^nothing: no such run in MLflow; pipeline runs: miniature first, miniature second;",
        ),
        (("first", "second/rl"), "one is a pipeline run and the other a node's"),
        (("first/rl", "first/rl"), "are the same run, first/rl"),
    ]:
        with pytest.raises(CascadeError, match=message):
            compare(*names, two_runs)


def test_without_a_server_it_is_said(layout, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(CascadeError, match=r"^MLflow at http://127\.0\.0\.1:9: "):
        compare("a", "b", layout)


def test_the_chart_is_the_same_for_the_same_runs(two_runs, tmp_path):
    found = compare("first", "second", two_runs)
    one, two = draw(found, tmp_path / "a.png"), draw(found, tmp_path / "b.png")
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")
    # Two draws have differed once in digits of the file; what is compared is the picture to a hundredth of a point.
    one, two = (
        re.sub(
            r"-?\d+\.\d+",
            lambda number: f"{float(number[0]):.2f}",
            re.sub(r"\b[a-z]?[0-9a-f]{10}\b", "NAME", draw(found, tmp_path / f"{name}.svg").read_text()),
        )
        for name in "ab"
    )
    assert one == two
    with pytest.raises(CascadeError, match=r"chart is a \.png or an \.svg"):
        draw(found, tmp_path / "a.gif")


def test_the_command_prints_and_draws(two_runs, monkeypatch):
    monkeypatch.chdir(two_runs.root)
    result = CliRunner().invoke(main, ["compare", "first/rl", "second/rl", "--chart", "chart.png"])
    assert result.exit_code == 0, result.output
    assert ["steps", "4", "8"] in [line.split() for line in result.output.splitlines()]
    assert (two_runs.root / "chart.png").exists()
    result = CliRunner().invoke(main, ["compare", "first/rl", "x"])
    assert (result.exit_code, len(result.output.strip().splitlines())) == (1, 1)


def test_recipes_that_differ_in_their_nodes_say_which(layout, recipe, monkeypatch):
    monkeypatch.setenv("CASCADE_RUN_ID", "second")
    run_pipeline(recipe, layout)
    monkeypatch.setenv("CASCADE_RUN_ID", "third")
    raw = recipe_with_gate().model_dump(mode="json")
    raw["gate"] = {"other_gate": raw["gate"]["release"]}
    other = Recipe.model_validate(raw)
    gate(other, "other_gate", layout)
    publish(other, layout, ["sft", "other_gate"])
    found = compare("second", "third", layout)
    assert found.only["miniature third"] == ["other_gate"]
    assert "release" in found.only["miniature second"]
