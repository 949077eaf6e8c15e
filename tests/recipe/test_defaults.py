"""What a recipe may leave out, and that it is filled in as one would write it."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes" / "nano.yaml").read_text())


def test_a_repair_is_checked_against_every_training_node_of_the_rounds_that_it_reads(content):
    recipe = Recipe.model_validate(content)
    first = {"sft", "if_rl", "multi_domain_rl", "rlhf_teacher", "mopd_warm_up", "mopd"}
    assert set(recipe.repair["rlhf_repair"].against) == first
    assert set(recipe.repair["long_context_repair"].against) == first | {"rlhf", "rlhf_repair"}


def test_a_gate_compares_with_every_other_training_node(content):
    recipe = Recipe.model_validate(content)
    assert set(recipe.gate["release"].against) == set(recipe.training) - {"swe_agentic_repair"}


def test_against_that_is_written_stays(content):
    content["gate"]["release"]["against"] = ["sft"]
    assert Recipe.model_validate(content).gate["release"].against == ["sft"]


def test_an_even_mix_is_over_the_domains_with_prompts_and_a_benchmark(content):
    sources = content["curation"]["sources"]
    mix = Recipe.model_validate(content).repair["rlhf_repair"].mix
    assert mix == pytest.approx(dict.fromkeys(sources, 0.1))
    del sources["code"]["benchmark"], sources["code"]["held_out"]
    content["repair"] = {"rlhf_repair": {**content["repair"]["rlhf_repair"]}}
    content["rl"] = {name: content["rl"][name] for name in ("if_rl", "multi_domain_rl", "rlhf_teacher", "rlhf")}
    content["gate"] = {}
    assert "code" not in Recipe.model_validate(content).repair["rlhf_repair"].mix


def test_what_was_given_is_not_changed(content):
    before = copy.deepcopy(content)
    Recipe.model_validate(content)
    assert content == before


def test_a_recipe_of_sft_alone(content, tmp_path):
    for section in ("rl", "teachers", "off_policy", "distill", "repair", "gate"):
        del content[section]
    recipe = Recipe.model_validate(content)
    assert list(recipe.ordered()) == ["sft"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run([*dvc, "stage", "list", "--name-only"], cwd=tmp_path, capture_output=True, text=True)
    assert listed.stdout.split() == ["curate", "sft@sft", "evaluate-sft@sft"], listed.stderr


@pytest.mark.parametrize(
    "broken", [{"rl": 3}, {"rl": {"if_rl": 3}}, {"curation": []}, {"repair": {"x": {"mix": "odd"}}}]
)
def test_what_is_not_of_the_expected_form_is_left_for_validation(content, broken):
    with pytest.raises(ValueError, match=next(iter(broken))):
        Recipe.model_validate({**content, **broken})
