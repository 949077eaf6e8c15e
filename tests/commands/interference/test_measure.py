"""The whole of it on the miniature project: runs, a kill in between, the files; and what is refused."""

import csv
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from cascade import stages
from cascade.commands.interference import measure, run
from cascade.commands.interference.page import in_words, write
from cascade.environments import registry
from cascade.errors import RecipeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import read_json
from tests.training.miniature import FindTheWord, make_checkpoint, make_recipe, prompt_rows, write_rows


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("find_the_word")
    module.ENVIRONMENT = FindTheWord()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "find_the_word", module)
    monkeypatch.setitem(registry.MODULES, "find_the_word", "find_the_word")
    monkeypatch.setattr(stages, "live", lambda *_, **__: nullcontext())


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    return make_project(tmp_path / "project", make_recipe())


def make_project(root: Path, recipe: Recipe) -> Layout:
    layout = Layout(root)
    make_checkpoint(layout.checkpoint("sft"), 1)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20))
        write_rows(layout.benchmark(domain), prompt_rows(domain, 10))
    layout.params.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return layout


def test_every_domain_is_trained_alone_and_measured_on_all(project: Layout) -> None:
    found = measure("sft", project)
    assert [(e.trained, e.evaluated) for e in found.effects] == [(a, b) for a in ("one", "two") for b in ("one", "two")]
    assert found.nodes == {"one": "rl", "two": "rl"}
    assert found.steps == {"one": 4, "two": 4}
    assert found.default == [["one", "two"]]
    manifest = read_json(Layout(found.folder).training("alone-one") / "manifest.json")
    assert manifest["parent"] == "sft"
    page = write(found)
    assert "<svg" in page.read_text()
    with open(found.folder / "matrix.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["difference"]) for line in lines] == [e.difference for e in found.effects]
    assert read_json(found.folder / "matrix.json")["suggested"]["stages"] == found.suggested
    assert (found.folder / "matrix.png").stat().st_size > 0
    assert any("Suggested order" in line for line in in_words(found))
    assert not (project.root / "models" / "alone-one").exists()
    assert not list(found.folder.glob("models/alone-*"))


def test_killed_it_goes_on_and_ends_the_same(project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure("sft", make_project(tmp_path / "whole", make_recipe()))
    built: list[str] = []

    def killed(name: str, layout: Layout) -> None:
        if name == "alone-two" and name not in built:
            built.append(name)
            raise KeyboardInterrupt
        built.append(name)
        stages.run_node(name, layout)

    monkeypatch.setattr(run, "run_node", killed)
    with pytest.raises(KeyboardInterrupt):
        measure("sft", project)
    assert built == ["alone-one", "alone-two"]
    found = measure("sft", project)
    assert built == ["alone-one", "alone-two", "alone-two"]
    assert found.effects == whole.effects
    assert measure("sft", project).effects == whole.effects
    assert len(built) == 3


def test_other_steps_are_another_matrix(project: Layout) -> None:
    found = measure("sft", project, steps=1)
    assert found.steps == {"one": 1, "two": 1}
    assert read_json(Layout(found.folder).training("alone-two") / "metrics.json")["steps"] == 1
    assert measure("sft", project, steps=2).folder != found.folder


def test_a_start_that_makes_no_checkpoint_is_refused(project: Layout) -> None:
    with pytest.raises(RecipeError, match="choose: makes no checkpoint to start from; these do: sft, rl"):
        measure("choose", project)


def test_a_domain_is_trained_as_by_the_node_that_gives_it_most() -> None:
    raw = make_recipe().model_dump(mode="json")
    raw["rl"]["first"] = {**raw["rl"]["rl"], "mix": {"two": 1.0}}
    raw["rl"]["second"] = {**raw["rl"]["rl"], "mix": {"two": 1.0}, "steps": 9}
    assert run.nodes_of(Recipe.model_validate(raw)) == {"one": "rl", "two": "first"}
