"""An override changes the key that it names, and nothing else; what DVC would lose, or do elsewhere too, is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from cascade.errors import RecipeError
from tasks.overrides import override_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(request.param.read_text())
    return path


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "recipes" / "nano.yaml").read_text())
    return path


def _values(tree: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {at: tree}
    return {key: value for name in tree for key, value in _values(tree[name], f"{at}.{name}".lstrip(".")).items()}


def _of(path: Path) -> dict[str, Any]:
    return _values(yaml.safe_load(path.read_text()))


def test_dvc_changes_every_number_where_it_stands(recipe: Path) -> None:
    """`dvc exp run -S` is DVC's own: there the recipes must be such that nothing can be lost."""
    before = _of(recipe)
    numbers = {key: value for key, value in before.items() if isinstance(value, int | float) and ".levels." not in key}
    changed = {key: not value if isinstance(value, bool) else value + 1 for key, value in numbers.items()}
    assert len(changed) > 30
    apply_overrides(recipe, [f"{key}={value}" for key, value in changed.items()])
    assert _of(recipe) == {**before, **changed}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("rl.swe_agentic_rl.rollout.max_turns=6", "rl.swe_agentic_rl.rollout.max_turns", 6),
        ("evaluation.rollout.max_turns=5", "evaluation.rollout.max_turns", 5),
        ("repair.code_repair.optimizer.warmup_steps=9", "repair.code_repair.optimizer.warmup_steps", 9),
        ("rl.code_rl.optimizer={learning_rate: 0.5}", "rl.code_rl.optimizer.learning_rate", 0.5),
        ("+rl.code_rl.kl=0.25", "rl.code_rl.kl", 0.25),
        ("seed=${threads}", "seed", 2),
        ("base='models/a b'", "base", "models/a b"),
        ("+gate.release.against=[sft, mopd]", "gate.release.against", ["sft", "mopd"]),
        ("teachers.select_teachers.candidates=[sft, if_rl]", "teachers.select_teachers.candidates", ["sft", "if_rl"]),
    ],
)
def test_an_override_changes_what_it_names_alone(nano: Path, override: str, key: str, value: Any) -> None:
    before = _of(nano)
    override_recipe(nano, [override])
    assert _of(nano) == {**before, key: value}


def test_a_small_number_is_the_same_number(nano: Path) -> None:
    before = _of(nano)
    override_recipe(nano, ["rl.code_rl.optimizer.learning_rate=1e-7"])
    after = _of(nano)
    # Written as YAML 1.2 has it, which PyYAML reads as text; the recipe's types take it.
    assert float(after.pop("rl.code_rl.optimizer.learning_rate")) == 1e-7
    assert after == {key: value for key, value in before.items() if key in after}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("repair={}", "repair.rlhf_repair would not be what it says"),  # lost
        ("+rl.code_rl.mix={math: 1.0}", "rl.code_rl.mix.code would not be what it says, but 1.0"),  # merged
        ("+curation.sources.math.levels.2=0.5", "curation.sources.math.levels.2 would not be what it says"),
        ("name=yes", "name would not be what it says, but True"),  # text in YAML 1.2, which DVC writes, not in 1.1
        ("name=1:30", "name would not be what it says, but 90"),
        ("+seed.x=3", "seed would not be what it says"),
        ("seed=range(1,3)", "one plain value"),
        ("seed=???", "one plain value"),
        ("~teachers.select_teachers.candidates.0", "one plain value"),
    ],
)
def test_an_override_that_is_lost_or_does_more_is_refused(nano: Path, override: str, told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        override_recipe(nano, [override])
    assert str(refused.value).startswith(f"override {override!r}: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_shared_block_is_not_changed_through_one_of_its_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for override, told in (("a.x=2", "a.x would not be what it says, but 1"), ("b.x=2", "a.x would not be")):
        path.write_text("a: &shared {x: 1}\nb: *shared\n")
        with pytest.raises(RecipeError, match=told):
            override_recipe(path, [override])


@pytest.mark.parametrize(
    ("override", "first", "second"),
    [
        ("rl.code_rl.mix={math: 1.0}", "~rl.code_rl.mix", "+rl.code_rl.mix={math: 1.0}"),
        ("+rl.code_rl.mix={math: 1.0}", "~rl.code_rl.mix", "+rl.code_rl.mix={math: 1.0}"),
        ("repair={}", "~repair", "+repair={}"),
        ("curation.sources.math.levels.2=0.5", "~curation.sources.math.levels", "+curation.sources.math.levels={…}"),
    ],
)
def test_a_whole_mapping_is_replaced_by_the_two_overrides_that_the_message_names(
    nano: Path, override: str, first: str, second: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        override_recipe(nano, [override])
    assert str(refused.value).endswith(f"write two overrides, {first!r} and then {second!r}")
    second = second.replace("{…}", "{2: 0.25, 5: 0.75}")
    override_recipe(nano, [first, second])
    *sections, key = first.removeprefix("~").split(".")
    tree = yaml.safe_load(nano.read_text())
    for section in sections:
        tree = tree[section]
    assert tree[key] == yaml.safe_load(second.partition("=")[2])
