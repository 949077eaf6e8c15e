"""The regression check: its decision, the checkpoint passed on, and the distillation where it is needed."""

import os
import shutil
from pathlib import Path

import pytest

from cascade.decisions import repair as repair_module
from cascade.decisions.gate import gate, lineage
from cascade.decisions.history import FileHistory
from cascade.decisions.repair import repair
from cascade.errors import CascadeError
from cascade.evaluation import benchmark, checkpoint_runner
from cascade.evaluation.rounds import enter_round
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal, decision_journal, live
from cascade.tracking.journal import tags_of
from cascade.tracking.publisher import Publisher
from cascade.utils import files
from cascade.utils.files import hash_directory, hash_file, read_json, write_json
from tests.evaluation.project import recipe_with_gate, recipe_with_repair, share, write_evaluation
from tests.training.miniature import make_checkpoint, make_recipe, prompt_rows, write_rows
from tests.training.test_resume import Killed, interrupt

NODES = ("sft", "rl", "mopd")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Nodes sft, rl and mopd, trained and evaluated: mopd is as good as the best in both domains."""
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    layout = Layout(tmp_path)
    write_json(layout.params, {})
    for seed, node in enumerate(NODES):
        make_checkpoint(layout.checkpoint(node), seed)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20))
        write_rows(layout.benchmark(domain), prompt_rows(domain, 3))
    score(layout, "sft", one=20, two=30)
    score(layout, "rl", one=35, two=25)
    score(layout, "mopd", one=34, two=30)
    return layout


def score(layout: Layout, node: str, **solved: int) -> None:
    """An evaluation of the node's checkpoint with so many of 40 prompts solved in each domain."""
    rewards = {domain: share(count) for domain, count in solved.items()}
    write_evaluation(layout, node, rewards, hash_directory(layout.checkpoint(node)))


def run(layout: Layout, recipe: Recipe | None = None) -> dict:
    return repair(recipe or make_recipe(mend={"steps": 2}), "mend", layout, FileHistory(layout))


# The decision


def test_the_check_finds_what_the_gate_finds(layout: Layout) -> None:
    score(layout, "mopd", one=20, two=30)
    checked = run(layout, recipe_with_repair(steps=1, rollout={"max_new_tokens": 5, "thinking": False}))
    judged = gate(recipe_with_gate(), "release", layout, FileHistory(layout))
    assert checked["domains"] == judged["domains"]
    assert (checked["regressed"], judged["passed"]) == (["one"], False)
    assert checked["words"] == judged["words"]


def test_a_regressed_domain_is_taught_by_the_best_and_the_others_by_the_start(layout: Layout) -> None:
    score(layout, "mopd", one=20, two=30)
    decision = run(layout)
    assert decision == read_json(layout.decision("mend"))
    assert {domain: teacher["node"] for domain, teacher in decision["teachers"].items()} == {"one": "rl", "two": "mopd"}
    for teacher in decision["teachers"].values():
        assert teacher["checkpoint"] == f"models/{teacher['node']}"
        assert teacher["hash"] == hash_directory(layout.checkpoint(teacher["node"]))
    assert decision["domains"]["one"]["verdict"] == "regressed"
    assert decision["table"]["mopd"] == {"one": 20 / 40, "two": 30 / 40}


@pytest.mark.parametrize("rules", [{"minimum_effect": 0.6}, {"significance": 0.0001}])
def test_a_drop_that_the_rules_let_pass_is_no_regression(layout: Layout, rules: dict) -> None:
    score(layout, "mopd", one=20, two=30)  # fifteen prompts of forty lost: 37.5 points
    assert run(layout, make_recipe(mend=rules))["regressed"] == []
    assert hash_directory(layout.checkpoint("mend")) == hash_directory(layout.checkpoint("mopd"))


def test_a_missing_evaluation_is_named(layout: Layout) -> None:
    shutil.rmtree(layout.evaluation("rl"))
    with pytest.raises(CascadeError, match=r"evaluations/rl/prompts\.csv: no such file; `cascade evaluate NODE`"):
        run(layout)
    assert not layout.decision("mend").exists()


def test_an_evaluation_of_another_checkpoint_is_refused(layout: Layout) -> None:
    make_checkpoint(layout.checkpoint("rl"), seed=9)
    with pytest.raises(CascadeError, match=r"models/rl: the evaluation .* is of another checkpoint"):
        run(layout)


def test_the_decision_is_in_mlflow_with_its_numbers(layout: Layout) -> None:
    recipe = make_recipe()
    with live(recipe, layout, "mend"):
        repair(recipe, "mend", layout)
    tags = tags_of(decision_journal(layout, "mend").entries())
    assert tags["history"].startswith("MLflow run ")
    found = Publisher(recipe, layout).find("mend")
    assert found is not None
    assert found.data.tags["regressed"] == "none"
    assert found.data.metrics["repair/one/visible_loss"] == pytest.approx(3.37457 * (1 / 22 / 20) ** 0.5, rel=1e-5)
    assert found.data.tags["checkpoint_hash"] == hash_directory(layout.checkpoint("mopd"))


# No regression


def test_without_a_regression_the_checkpoint_is_the_same_files(layout: Layout) -> None:
    (layout.training("mend")).mkdir(parents=True)
    (layout.training("mend") / "samples.jsonl").write_text('{"of": "an earlier distillation"}\n')
    decision = run(layout)
    assert (decision["regressed"], decision["teachers"]) == ([], {})
    ours, theirs = layout.checkpoint("mend"), layout.checkpoint("mopd")
    assert hash_directory(ours) == hash_directory(theirs)
    for path in theirs.iterdir():
        assert os.path.samefile(path, ours / path.name)
    manifest = read_json(layout.training("mend") / "manifest.json")
    assert (manifest["checkpoint"], manifest["tokens"]) == (hash_directory(theirs), 0)
    assert manifest["inputs"]["teachers"] == {}
    assert read_json(layout.training("mend") / "metrics.json") == {"steps": 0}
    assert (layout.training("mend") / "steps.csv").read_text() == "step\n"
    assert (layout.training("mend") / "samples.jsonl").read_text() == ""
    assert (layout.training("mend") / "rewards.csv").read_text() == "step,domain,reward\n"
    assert not layout.work("mend").exists()


def test_the_links_of_a_linked_checkpoint_are_of_its_files(layout: Layout) -> None:
    """DVC may put symbolic links into its cache where the files were."""
    real = layout.checkpoint("mopd") / "config.json"
    real.rename(layout.root / "cached.json")
    real.symlink_to(layout.root / "cached.json")
    run(layout)
    linked = layout.checkpoint("mend") / "config.json"
    assert not linked.is_symlink()
    assert os.path.samefile(linked, layout.root / "cached.json")


def test_where_nothing_can_be_linked_the_files_are_copied_and_that_is_said(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(files.errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", refuse)
    run(layout)
    assert hash_directory(layout.checkpoint("mend")) == hash_directory(layout.checkpoint("mopd"))
    assert "were copied, not linked: Invalid cross-device link" in capsys.readouterr().err


def test_the_evaluation_of_a_passed_on_checkpoint_is_taken_over(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = make_recipe(mend={"steps": 1})
    write_json(layout.decision("choose"), {"teachers": {}})
    run(layout, recipe)
    benchmark.evaluate(recipe, "mopd", layout)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_runner, "CheckpointRunner", None)  # whoever would sample fails
        benchmark.evaluate(recipe, "mend", layout)
    assert "mend: same checkpoint as mopd, whose evaluation is reused" in capsys.readouterr().err
    for file in ("rollouts.parquet", "prompts.csv", "summary.json"):
        assert hash_file(layout.evaluation("mend") / file) == hash_file(layout.evaluation("mopd") / file), file
    enter_round(recipe, "mend", layout)
    entry = read_json(layout.root / "results" / "lineage" / "3" / "mend.json")
    assert entry["teachers"] == hash_file(layout.decision("mend"))


@pytest.mark.parametrize("change", ["seed", "benchmark", "checkpoint", "kind"])
def test_an_evaluation_of_anything_else_is_not_taken_over(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    recipe = make_recipe()
    run(layout)
    benchmark.evaluate(recipe, "mopd", layout)
    node = "mend"
    if change == "seed":
        recipe = Recipe.model_validate({**recipe.model_dump(mode="json"), "seed": 1})
    elif change == "benchmark":
        write_rows(layout.benchmark("two"), prompt_rows("two", 4))
    elif change == "checkpoint":
        shutil.rmtree(layout.checkpoint("mend"))  # not written through: its files are those of mopd
        make_checkpoint(layout.checkpoint("mend"), seed=9)
        path = layout.training("mend") / "manifest.json"
        write_json(path, read_json(path) | {"checkpoint": hash_directory(layout.checkpoint("mend"))})
    else:
        shutil.copytree(layout.checkpoint("sft"), layout.checkpoint("rl"), dirs_exist_ok=True)
        benchmark.evaluate(recipe, "sft", layout)
        node = "rl"
    monkeypatch.setattr(checkpoint_runner, "CheckpointRunner", None)
    with pytest.raises(TypeError):
        benchmark.evaluate(recipe, node, layout)


# A regression


def test_a_regression_is_distilled_away_from_the_teachers_of_the_decision(layout: Layout) -> None:
    score(layout, "mopd", one=20, two=30)
    decision = run(layout)
    manifest = read_json(layout.training("mend") / "manifest.json")
    assert manifest["inputs"]["teachers"] == {domain: t["hash"] for domain, t in decision["teachers"].items()}
    assert manifest["inputs"]["parent"] == hash_directory(layout.checkpoint("mopd"))
    assert read_json(layout.training("mend") / "metrics.json")["steps"] == 2
    assert hash_directory(layout.checkpoint("mend")) != hash_directory(layout.checkpoint("mopd"))
    kinds = {e["kind"] for e in Journal(layout.journal("mend")).entries()}
    assert {"metrics", "dataset", "tags"} <= kinds
    tags = lineage(make_recipe(), "mend", layout, {"checkpoint": "x", "domains": {}})
    assert tags["teacher/one"].startswith("rl ")


def test_the_distillation_does_not_depend_on_the_rules_that_chose_its_teachers(layout: Layout) -> None:
    score(layout, "mopd", one=20, two=30)
    run(layout)
    first = hash_directory(layout.checkpoint("mend"))
    run(layout, make_recipe(mend={"steps": 2, "significance": 0.1, "minimum_effect": 0.1, "margin": 0.2}))
    assert hash_directory(layout.checkpoint("mend")) == first


def test_a_killed_repair_goes_on_with_its_decision_to_the_same_bytes(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    score(layout, "mopd", one=20, two=30)
    copy = Layout(tmp_path / "copy")
    shutil.copytree(layout.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    decision = run(layout)
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 1, before=False)
        with pytest.raises(Killed):
            run(copy)
    copy.decision("mend").unlink()  # as DVC does with the outputs of what it runs again
    with monkeypatch.context() as patch:
        patch.setattr(repair_module, "sampled_comparison", None)  # whoever would decide anew fails
        assert run(copy) == decision
    assert "mend: resuming after step 1" in capsys.readouterr().err
    assert copy.decision("mend").read_bytes() == layout.decision("mend").read_bytes()
    assert hash_directory(copy.checkpoint("mend")) == hash_directory(layout.checkpoint("mend"))


def test_other_evaluations_are_decided_anew(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    score(layout, "mopd", one=20, two=30)
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 1, before=False)
        with pytest.raises(Killed):
            run(layout)
    score(layout, "mopd", one=34, two=15)
    assert run(layout)["regressed"] == ["two"]
    assert "mend: starting from step 0: the state at step 1 was made from another teachers" in capsys.readouterr().err


def test_a_repair_killed_before_its_checkpoint_is_published_passes_on_all_the_same(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "_publish", 1, before=True)
        with pytest.raises(Killed):
            run(layout)
    assert not layout.checkpoint("mend").exists()
    run(layout)
    assert hash_directory(layout.checkpoint("mend")) == hash_directory(layout.checkpoint("mopd"))
