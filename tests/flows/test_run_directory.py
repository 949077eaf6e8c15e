"""A run of another recipe works in a directory of its own, and leaves the project as it is."""

import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from cascade.errors import RecipeError
from cascade.layout import Layout
from cascade.recipe import load
from flows.run import stale_stages
from tasks.run_directory import ACTIVE, project_of
from tests.flows.test_graph import flow_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for name in ("MLFLOW_TRACKING_URI", "CASCADE_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "base" / "config.json").write_text("{}")
    (tmp_path / "params.yaml").write_text((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return Layout(tmp_path)


def test_the_active_recipe_runs_in_the_project(home: Layout) -> None:
    assert project_of(home, ACTIVE, ()) == home


def test_another_recipe_has_a_directory_of_its_own(home: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.params.read_bytes()
    own = project_of(home, "nano-mopd", ())
    assert own.root == home.root / ".cascade" / "runs" / "nano-mopd"
    assert load(own.params).name == "nano-mopd"
    assert home.params.read_bytes() == before
    assert (own.root / "models" / "base" / "config.json").read_text() == "{}"
    monkeypatch.chdir(own.root)  # DVC names stages from where it is called
    assert stale_stages(own) == sorted(flow_graph(load(own.params)))
    with Repo(str(home.root)) as ours, Repo(str(own.root)) as theirs:
        assert theirs.cache.local.path == ours.cache.local.path
    assert (own.root / "mlflow" / "mlflow.db").resolve() == home.root / "mlflow" / "mlflow.db"


def test_overrides_are_those_of_dvc(home: Layout) -> None:
    own = project_of(home, ACTIVE, ("seed=7", "rl.if_rl.optimizer.learning_rate=2e-4", "threads=1", "+rl.if_rl.kl=0.5"))
    recipe = load(own.params)
    assert (recipe.seed, recipe.threads, recipe.rl["if_rl"].optimizer.learning_rate) == (7, 1, 2e-4)
    assert load(home.params).seed == 0
    untouched = {**yaml.safe_load(home.params.read_text()), "seed": 7, "threads": 1}
    untouched["rl"]["if_rl"]["optimizer"]["learning_rate"] = 2e-4
    untouched["rl"]["if_rl"]["kl"] = 0.5
    assert yaml.safe_load(own.params.read_text()) == untouched


def test_the_same_changes_are_the_same_run(home: Layout) -> None:
    one = project_of(home, "nano", ("seed=1",))
    (one.root / "kept").write_text("")
    unchanged = one.params.stat().st_mtime_ns
    assert project_of(home, "nano", ("seed=1",)) == one
    assert (one.root / "kept").exists()
    assert one.params.stat().st_mtime_ns == unchanged
    assert project_of(home, "nano", ("seed=2",)) != one


def test_what_the_project_has_built_is_built(home: Layout) -> None:
    stages = {"curate": {"outs": [{"path": "data/sft"}, {"path": "data/report.json"}, {"path": "data/gone"}]}}
    (home.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    (home.root / "data" / "sft").mkdir(parents=True)
    for name in ("sft/rows.parquet", "report.json", "private"):
        (home.root / "data" / name).write_text(name)
    own = project_of(home, ACTIVE, ("seed=1",))
    assert (own.root / "data" / "sft" / "rows.parquet").samefile(home.root / "data" / "sft" / "rows.parquet")
    # Small results may be written in place: they are copies.
    assert not (own.root / "data" / "report.json").samefile(home.root / "data" / "report.json")
    assert (own.root / "data" / "report.json").read_text() == "report.json"
    assert not (own.root / "data" / "private").exists()
    assert (own.root / "dvc.lock").read_text() == (home.root / "dvc.lock").read_text()


def test_inputs_that_the_recipe_names_are_there(home: Layout) -> None:
    recipe = yaml.safe_load(home.params.read_text())
    recipe["curation"]["sources"]["own"] = {"path": "data/raw/*.jsonl", "domain": "mcqa", "rl": 5}
    home.params.write_text(yaml.safe_dump(recipe))
    (home.root / "data" / "raw").mkdir(parents=True)
    (home.root / "data" / "raw" / "a.jsonl").write_text("first")
    own = project_of(home, ACTIVE, ("seed=1",))
    assert (own.root / "data" / "raw" / "a.jsonl").read_text() == "first"
    (home.root / "data" / "raw" / "a.jsonl").rename(home.root / "data" / "raw" / "b.jsonl")
    project_of(home, ACTIVE, ("seed=1",))
    assert [path.name for path in (own.root / "data" / "raw").iterdir()] == ["b.jsonl"]


@pytest.mark.parametrize(
    ("recipe", "override", "told"),
    [
        ("nanno", "seed=1", "neither a recipe in recipes/"),
        ("nano", "seeed=1", "+KEY=VALUE"),
        ("nano", "seed", "KEY=VALUE"),
        ("nano", "seed=one", "nano.yaml with seed=one: seed: "),
        ("nano", "+rl.if_rl.stepps=3", "did you mean steps?"),
    ],
)
def test_what_is_no_recipe_is_one_line(home: Layout, recipe: str, override: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        project_of(home, recipe, (override,))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(home.root.glob(".cascade/runs/*/*.yaml"))
