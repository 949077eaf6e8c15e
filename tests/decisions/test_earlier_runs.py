"""A second run that starts from what the first learned: its teachers, and where the recipe does not say so."""

import hashlib
import json
import shutil

import pytest

from cascade.decisions.history import FileHistory, MLflowHistory
from cascade.decisions.teacher_selection import select_teachers
from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import publish
from cascade.tracking.dvc_cache import is_cached, restore
from cascade.training.teacher_scoring import chosen_teachers
from cascade.utils.files import hash_directory, read_json, write_json
from tests.evaluation.project import recipe_with_gate
from tests.evaluation.tracked import run_pipeline

FIRST = {"sft": (20, 30), "rl": (38, 25), "mopd": (36, 30)}
SECOND = {"sft": (21, 30), "rl": (30, 33), "mopd": (31, 33)}


def recipe(earlier_runs: bool = True, **domains: list[str]) -> Recipe:
    raw = recipe_with_gate().model_dump(mode="json")
    raw["teachers"]["choose"] |= {"earlier_runs": earlier_runs, "domains": domains}
    return Recipe.model_validate(raw)


def keep(layout: Layout, nodes: list[str]) -> None:
    """What DVC does after a stage: the checkpoint's files into its cache, their hashes into dvc.lock."""

    def add(content: bytes, suffix: str = "") -> str:
        digest = hashlib.md5(content).hexdigest() + suffix
        path = layout.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest

    stages = {}
    for node in nodes:
        files = sorted(path for path in layout.checkpoint(node).rglob("*") if path.is_file())
        listing = [
            {"md5": add(f.read_bytes()), "relpath": f.relative_to(layout.checkpoint(node)).as_posix()} for f in files
        ]
        kept = add(json.dumps(listing).encode(), ".dir")
        stages[f"rl@{node}"] = {"cmd": "x", "outs": [{"path": f"models/{node}", "md5": kept}]}
    (layout.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


@pytest.fixture
def first_run(tmp_path, monkeypatch):
    """Its project, with the second run's checkpoints under models/ and the first one's in DVC's cache alone."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    layout = Layout(tmp_path)
    monkeypatch.setenv("CASCADE_RUN_ID", "first")
    run_pipeline(recipe(False), layout, FIRST)
    keep(layout, list(FIRST))
    publish(recipe(False), layout, list(FIRST))
    best = hash_directory(layout.checkpoint("rl"))
    monkeypatch.setenv("CASCADE_RUN_ID", "second")
    (layout.root / "dvc.lock").unlink()
    run_pipeline(recipe(False), layout, SECOND)
    return layout, best


def test_the_best_of_both_runs_teach_where_the_recipe_says_so(first_run, capsys):
    layout, best = first_run
    alone = read_json(layout.decision("choose"))
    assert {d: t["node"] for d, t in alone["teachers"].items()} == {"one": "rl", "two": "rl"}
    assert set(alone["read"]) == {"sft", "rl"}

    decision = select_teachers(recipe(), "choose", layout)
    assert {d: t["node"] for d, t in decision["teachers"].items()} == {"one": "rl@first", "two": "rl"}
    assert decision["reasons"]["one"]["reason"] == "0.950, before 0.750 of rl"
    # What was read is named, and MOPD reads what was chosen: the very files of the first run.
    assert decision["read"]["rl@first"]["checkpoint"] == best == decision["teachers"]["one"]["hash"]
    assert "sft@first" in decision["table"]
    teachers = chosen_teachers(recipe(), "mopd", layout)
    assert hash_directory(teachers["one"].checkpoint) == best != hash_directory(layout.checkpoint("rl"))
    assert teachers["two"].checkpoint == layout.checkpoint("rl")
    # Decided again it is the same, to the byte.
    before = layout.decision("choose").read_bytes()
    select_teachers(recipe(), "choose", layout)
    assert layout.decision("choose").read_bytes() == before
    # On another machine that has the decision and the cache, the distillation puts the files in place itself.
    shutil.rmtree(layout.root / ".cascade" / "earlier")
    assert hash_directory(chosen_teachers(recipe(), "mopd", layout)["one"].checkpoint) == best


def test_a_domain_that_is_restricted_is_so_for_earlier_runs_too(first_run):
    layout, _ = first_run
    decision = select_teachers(recipe(one=["sft"]), "choose", layout)
    assert decision["teachers"]["one"]["node"] == "sft"
    assert decision["reasons"]["one"]["reason"].startswith("0.525, before 0.500 of sft@first")


def test_among_equals_this_run_teaches(first_run):
    layout, _ = first_run
    decision = select_teachers(recipe(two=["sft"]), "choose", layout)
    assert decision["teachers"]["two"]["node"] == "sft"
    assert decision["reasons"]["two"]["reason"].startswith("0.750, as sft@first, but of this run")


def test_scores_of_other_benchmarks_do_not_count(first_run):
    layout, _ = first_run
    for node in SECOND:
        manifest = layout.evaluation(node) / "manifest.json"
        found = read_json(manifest)
        write_json(manifest, {**found, "inputs": {**found["inputs"], "benchmarks": "others"}})
        _evaluate_anew(layout, node)
    decision = select_teachers(recipe(), "choose", layout)
    assert {d: t["node"] for d, t in decision["teachers"].items()} == {"one": "rl", "two": "rl"}


def _evaluate_anew(layout, node):
    from cascade.evaluation.results import record
    from cascade.tracking import evaluation_journal

    record(evaluation_journal(layout, node), layout, node)


def test_a_checkpoint_that_is_not_in_the_cache_is_left_out_and_named(first_run, capsys):
    layout, _ = first_run
    shutil.rmtree(layout.root / ".dvc")
    decision = select_teachers(recipe(), "choose", layout)
    assert decision["teachers"]["one"]["node"] == "rl"
    assert "rl@first: left out, its checkpoint is not in DVC's cache here" in capsys.readouterr().err


def test_what_the_cache_has_must_be_what_was_evaluated(first_run):
    layout, best = first_run
    kept = select_teachers(recipe(), "choose", layout)["teachers"]["one"]["dvc"]
    assert is_cached(layout, kept)
    shutil.rmtree(layout.root / ".cascade" / "earlier")
    with pytest.raises(CheckpointError, match=f"not {'0' * 12}"):
        restore(layout, "0" * 64, kept)
    shutil.rmtree(layout.root / ".dvc")
    with pytest.raises(CheckpointError, match=r"is not in DVC's cache here; `dvc fetch` brings it"):
        restore(layout, best, kept)


def test_the_cache_may_lie_elsewhere(first_run):
    layout, best = first_run
    kept = select_teachers(recipe(), "choose", layout)["teachers"]["one"]["dvc"]
    shutil.rmtree(layout.root / ".cascade" / "earlier")
    (layout.root / ".dvc" / "cache").rename(layout.root / "shared")
    assert not is_cached(layout, kept)
    (layout.root / ".dvc" / "config.local").write_text(
        "[cache]\n    dir = ../shared\n['remote \"x\"']\n    url = s3://%20\n"
    )
    assert hash_directory(restore(layout, best, kept)) == best


def test_without_mlflow_it_is_an_error(first_run):
    layout, _ = first_run
    with pytest.raises(CascadeError, match="earlier_runs: what earlier runs scored is in MLflow"):
        select_teachers(recipe(), "choose", layout, FileHistory(layout))
    assert select_teachers(recipe(False), "choose", layout, FileHistory(layout))["teachers"]["one"]["node"] == "rl"


def test_evaluations_that_differ_among_themselves_are_an_error(first_run):
    layout, _ = first_run
    manifest = layout.evaluation("rl") / "manifest.json"
    found = read_json(manifest)
    write_json(manifest, {**found, "inputs": {**found["inputs"], "seed": 7}})
    _evaluate_anew(layout, "rl")
    with pytest.raises(CascadeError, match="sft, rl: not all evaluated on the same benchmarks"):
        select_teachers(recipe(), "choose", layout, MLflowHistory(recipe(), layout))
