"""Teacher selection and the gate, from files and from a real MLflow store."""

import shutil

import pytest
from mlflow import MlflowClient

from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory, MLflowHistory, open_history
from cascade.decisions.teacher_selection import select_teachers
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal, live, mlflow_store, publish
from cascade.tracking.journal import tags_of
from cascade.utils.files import read_json, write_json
from tests.evaluation.project import make_node, recipe_with_gate, share, write_evaluation


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    layout = Layout(tmp_path)
    write_json(layout.params, {})
    write_evaluation(layout, "sft", {"one": share(20), "two": share(30)})
    write_evaluation(layout, "rl", {"one": share(35), "two": share(25)})
    write_evaluation(layout, "mopd", {"one": share(34), "two": share(30)})
    write_json(layout.decision("choose"), {"teachers": {"one": {"node": "rl", "hash": "f" * 64}}})
    return layout


@pytest.fixture
def recipe():
    return recipe_with_gate()


# Teachers


def test_each_domain_is_taught_by_its_best_checkpoint(layout, recipe):
    decision = select_teachers(recipe, "choose", layout, FileHistory(layout))
    assert decision == read_json(layout.decision("choose"))
    assert decision["teachers"]["one"] == {"node": "rl", "checkpoint": "models/rl", "hash": make_node(layout, "rl")}
    assert decision["teachers"]["two"]["node"] == "sft"
    assert decision["reasons"]["one"]["score"] == 35 / 40
    low, high = decision["reasons"]["one"]["ci"]
    assert low < 35 / 40 < high
    assert decision["reasons"]["two"]["reason"] == "0.750, before 0.625 of rl"
    assert decision["table"] == {"sft": {"one": 0.5, "two": 0.75}, "rl": {"one": 0.875, "two": 0.625}}
    assert decision["read"]["rl"]["prompts"] == {"one": 40, "two": 40}


def test_among_equals_the_earlier_one_teaches_and_it_is_said(layout, recipe):
    write_evaluation(layout, "rl", {"one": share(20), "two": share(30)})
    decision = select_teachers(recipe, "choose", layout, FileHistory(layout))
    assert decision["teachers"]["two"]["node"] == "sft"
    assert decision["reasons"]["two"]["reason"] == "0.750, as rl, but earlier in the cascade"


def test_a_domain_may_be_restricted(layout, recipe):
    raw = recipe.model_dump(mode="json")
    raw["teachers"]["choose"]["domains"] = {"one": ["sft"]}
    decision = select_teachers(Recipe.model_validate(raw), "choose", layout, FileHistory(layout))
    assert decision["teachers"]["one"]["node"] == "sft"
    assert decision["reasons"]["one"]["reason"] == "0.500, the only candidate, restricted by the recipe"


def test_results_of_another_checkpoint_are_refused(layout, recipe):
    make_node(layout, "rl", content='{"retrained": true}')
    with pytest.raises(CascadeError, match=r"models/rl: the evaluation .* is of another checkpoint"):
        select_teachers(recipe, "choose", layout, FileHistory(layout))


def test_a_candidate_without_results_is_named(layout, recipe):
    shutil.rmtree(layout.evaluation("rl"))
    with pytest.raises(CascadeError, match=r"evaluations/rl/summary\.json: no such file"):
        select_teachers(recipe, "choose", layout, FileHistory(layout))


# The gate


def test_a_candidate_as_good_as_the_best_passes_with_its_lineage(layout, recipe):
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert decision == read_json(layout.decision("release"))
    assert decision["passed"]
    one = decision["domains"]["one"]
    assert (one["best"], one["best_score"], one["score"]) == ("rl", 35 / 40, 34 / 40)
    # The one prompt of forty that differs is not among the twenty that are tested. Student's t with 19 degrees of
    # freedom at 2.5 % (two domains) and 10 %, with the standard error of 22 differences of 0, and of ±1 at half weight.
    error = (1 / 22 / 20) ** 0.5
    assert one["difference"] == 0.0
    assert one["bounds"] == pytest.approx([-1.32773 * error, 2.09302 * error], rel=1e-5)
    assert one["visible_loss"] == pytest.approx((2.09302 + 1.28155) * error, rel=1e-5)
    assert (one["verdict"], one["prompts"], one["looks"], one["further_rollouts"]) == ("undecided", 20, 1, 0)
    assert decision["domains"]["two"]["best"] == "sft"
    assert decision["words"] == "mopd falls in no domain below the best earlier checkpoint; undecided: one, two"
    (model,) = [e for e in Journal(layout.journal("release")).entries() if e["kind"] == "model"]
    assert (model["name"], model["alias"]) == ("miniature", "champion")
    assert model["tags"]["checkpoint_hash"] == make_node(layout, "mopd")
    assert model["tags"]["parent"] == "rl"
    assert model["tags"]["teacher/one"] == "rl ffffffffffff"
    assert {"recipe_hash", "git_revision", "score/one", "score/two"} <= set(model["tags"])


def test_a_significant_drop_in_one_domain_fails(layout, recipe, capsys):
    write_evaluation(layout, "mopd", {"one": share(20), "two": share(40)})
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert not decision["passed"]
    assert not decision["domains"]["one"]["passed"]
    assert decision["domains"]["two"]["passed"]
    assert decision["domains"]["one"]["words"].endswith(": regressed")
    assert decision["domains"]["two"]["verdict"] == "not regressed"
    assert "FAILED" in capsys.readouterr().err
    journal = Journal(layout.journal("release")).entries()
    assert not [e for e in journal if e["kind"] == "model"]
    assert tags_of(journal)["passed"] == "false"


def test_a_drop_below_the_minimum_effect_passes(layout):
    write_evaluation(layout, "mopd", {"one": share(20), "two": share(40)})
    decision = gate(recipe_with_gate(minimum_effect=0.6), "release", layout, FileHistory(layout))
    assert decision["passed"]
    one = decision["domains"]["one"]
    assert one["bounds"][1] < 0
    assert one["verdict"] == "undecided"


def test_a_gate_that_could_not_have_failed_does_not_pass(layout, recipe):
    """No reward in one domain, three tested prompts in the other: t with two degrees of freedom needs 4.3 errors."""
    for node in ("sft", "rl", "mopd"):
        write_evaluation(layout, node, {"one": share(0), "two": share(5, prompts=6)})
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert not decision["passed"]
    assert decision["words"].startswith("nothing is measured of mopd: in every domain too few benchmark prompts")
    assert not [e for e in Journal(layout.journal("release")).entries() if e["kind"] == "model"]


def test_a_gate_says_of_which_domains_it_knows_nothing(layout, recipe):
    """Six tested prompts, all solved: a regression, if they are lost."""
    for node in ("sft", "rl", "mopd"):
        write_evaluation(layout, node, {"one": share(0), "two": share(12, prompts=12)})
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert decision["passed"]
    assert [verdict["measured"] for verdict in decision["domains"].values()] == [False, True]
    assert "; undecided: two; nothing is measured in one: too few" in decision["words"]
    write_evaluation(layout, "mopd", {"one": share(0), "two": share(0, prompts=12)})
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert decision["domains"]["two"]["verdict"] == "regressed"
    assert not decision["domains"]["two"]["passed"]


@pytest.mark.parametrize(("margin", "verdict"), [(0.06, "undecided"), (0.07, "not regressed")])
def test_a_domain_has_held_where_the_margin_is_excluded(layout, margin, verdict):
    decision = gate(recipe_with_gate(margin=margin), "release", layout, FileHistory(layout))
    assert decision["domains"]["two"]["bounds"][0] == pytest.approx(-0.0633, abs=1e-4)
    assert decision["domains"]["two"]["verdict"] == verdict


def test_a_checkpoint_has_not_regressed_against_itself(layout, recipe):
    write_evaluation(layout, "mopd", {"one": share(35), "two": share(25)}, make_node(layout, "mopd", '{"node": "rl"}'))
    decision = gate(recipe, "release", layout, FileHistory(layout))
    assert decision["domains"]["one"]["best"] == "rl"
    assert decision["domains"]["one"]["verdict"] == "not regressed"
    assert decision["domains"]["two"]["verdict"] == "undecided"


def test_of_a_handful_of_prompts_nothing_is_known(layout, recipe):
    for node in ("sft", "rl", "mopd"):
        write_evaluation(layout, node, {"one": share(2, prompts=2), "two": share(30)})
    one = gate(recipe, "release", layout, FileHistory(layout))["domains"]["one"]
    assert (one["prompts"], one["bounds"], one["visible_loss"]) == (1, [-1.0, 1.0], 1.0)
    assert (one["verdict"], one["measured"]) == ("undecided", False)


def test_the_decision_is_the_same_every_time(layout, recipe):
    gate(recipe, "release", layout, FileHistory(layout))
    first = layout.decision("release").read_bytes()
    gate(recipe, "release", layout, FileHistory(layout))
    assert layout.decision("release").read_bytes() == first


def test_other_prompts_cannot_be_compared(layout, recipe):
    write_evaluation(layout, "mopd", {"one": share(34, prompts=20), "two": share(30)})
    with pytest.raises(CascadeError, match="one: mopd and rl share 20 benchmark prompts of 20 and 40"):
        gate(recipe, "release", layout, FileHistory(layout))


# History


def test_mlflow_and_files_give_the_same_decision_and_the_winner_is_registered(layout, recipe):
    with live(recipe, layout, "release"):
        decision = gate(recipe, "release", layout, MLflowHistory(recipe, layout))
    assert tags_of(Journal(layout.journal("release")).entries())["history"].startswith("MLflow run ")
    client = MlflowClient(tracking_uri=mlflow_store.tracking_uri(layout))
    version = client.get_model_version_by_alias("miniature", "champion")
    assert version.tags["checkpoint_hash"] == decision["checkpoint"]
    assert version.tags["teacher/one"] == "rl ffffffffffff"
    through_mlflow = layout.decision("release").read_bytes()
    gate(recipe, "release", layout, FileHistory(layout))
    assert layout.decision("release").read_bytes() == through_mlflow
    # An evaluation that another machine made and DVC brought here has no journal yet.
    shutil.rmtree(layout.root / ".cascade" / "journal")
    for file in (layout.root / "results").rglob("prompts.csv"):
        file.unlink()
    assert MLflowHistory(recipe, layout).evaluation("rl") == FileHistory(layout).evaluation("rl")
    # What counts is what MLflow has.
    publish(recipe, layout, ["sft"])
    assert select_teachers(recipe, "choose", layout)["teachers"]["two"]["node"] == "sft"


def test_without_mlflow_the_files_are_read_and_that_is_said(layout, recipe, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("cascade.tracking.background._warned", set())
    history = open_history(recipe, layout)
    assert history.source == "results/evaluations"
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert select_teachers(recipe, "choose", layout, history)["teachers"]["one"]["node"] == "rl"
