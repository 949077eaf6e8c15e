"""The journal, and its replay into a real MLflow store (SQLite)."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from cascade.layout import Layout
from cascade.recipe import PIPELINE, Recipe
from cascade.tracking import EVALUATED, Journal, background, evaluation_journal, following, live, mlflow_store, publish
from cascade.tracking.journal import system_journal, write_table
from cascade.tracking.notes import NOTE
from cascade.tracking.publisher import Publisher
from cascade.utils.files import hash_file


def client_of(layout: Layout) -> MlflowClient:
    return MlflowClient(tracking_uri=mlflow_store.tracking_uri(layout))


def runs_of(layout: Layout) -> dict[str, list]:
    client = client_of(layout)
    found: dict[str, list] = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        found.setdefault(run.data.tags[mlflow_store.NODE], []).append(run)
    return found


def write_training(layout: Layout, node: str = "rl", steps: int = 3, **tags: str) -> Journal:
    journal = Journal(layout.journal(node))
    journal.rewind(0)
    journal.params({"steps": steps, "rollout": {"temperature": 1.0}})
    journal.tags({"inputs_hash": "i1", **tags})
    for step in range(steps):
        journal.metrics({"train/loss": 1.0 / (step + 1), "eval/one/pass@1": 0.5}, step)
    journal.tags({"checkpoint_hash": "c1"})
    return journal


# The journal


def test_journal_ignores_and_later_drops_a_torn_line(tmp_path):
    journal = Journal(tmp_path / "a" / "node.jsonl")
    journal.tags({"a": "1"})
    with open(journal.path, "a") as file:
        file.write('{"kind": "tags", "val')
    assert len(journal.entries()) == 1
    after_restart = Journal(journal.path)
    after_restart.tags({"b": "2"})
    assert [entry["values"] for entry in after_restart.entries()] == [{"a": "1"}, {"b": "2"}]


def test_rewind_forgets_later_metrics_and_at_zero_everything(tmp_path):
    journal = Journal(tmp_path / "node.jsonl")
    journal.params({"a": 1})
    for step in range(4):
        journal.metrics({"x": step}, step)
    journal.rewind(2)
    assert [e["step"] for e in journal.entries() if e["kind"] == "metrics"] == [0, 1]
    assert any(e["kind"] == "params" for e in journal.entries())
    journal.rewind(0)
    assert journal.entries() == []


# The replay


def test_a_node_is_a_child_of_the_pipeline_run(layout, recipe):
    write_training(layout)
    assert publish(recipe, layout, ["rl"])
    runs = runs_of(layout)
    (parent,), (child,) = runs[PIPELINE], runs["rl"]
    assert child.data.tags[mlflow_store.PARENT] == parent.info.run_id
    assert child.data.params == {"steps": "3", "rollout.temperature": "1.0"}
    assert child.data.metrics["eval/one/pass_at_1"] == 0.5
    assert child.data.tags["checkpoint_hash"] == "c1"
    assert child.info.status == "FINISHED"
    history = client_of(layout).get_metric_history(child.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]


def test_replaying_adds_nothing_twice(layout, recipe):
    write_training(layout)
    (layout.root / "file.txt").write_text("x")
    Journal(layout.journal("rl")).artifact(layout.root / "file.txt", "folder")
    for _ in range(3):
        assert publish(recipe, layout, ["rl"])
    runs = runs_of(layout)
    assert {node: len(found) for node, found in runs.items()} == {PIPELINE: 1, "rl": 1}
    client = client_of(layout)
    assert len(client.get_metric_history(runs["rl"][0].info.run_id, "train/loss")) == 3
    assert [f.path for f in client.list_artifacts(runs["rl"][0].info.run_id, "folder")] == ["folder/file.txt"]


def test_a_resumed_node_goes_on_where_its_run_was(layout, recipe):
    journal = write_training(layout, steps=4)
    publish(recipe, layout, ["rl"])
    journal.rewind(2)
    for step in range(2, 6):
        journal.metrics({"train/loss": 1.0 / (step + 1)}, step)
    publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    points = client_of(layout).get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == [0, 1, 2, 3, 4, 5]


def test_a_node_that_does_not_name_its_inputs_is_published_anew(layout, recipe):
    for rows in (10, 20):
        journal = Journal(layout.journal("curate"))
        journal.rewind(0)
        journal.metrics({"curate/rows": rows}, 0)
        publish(recipe, layout, ["curate"])
    (run,) = runs_of(layout)["curate"]
    assert run.data.metrics["curate/rows"] == 20


def test_a_node_of_other_inputs_is_another_run(layout, recipe):
    write_training(layout)
    publish(recipe, layout, ["rl"])
    write_training(layout, steps=2, inputs_hash="i2")
    publish(recipe, layout, ["rl"])
    assert sorted(run.data.params["steps"] for run in runs_of(layout)["rl"]) == ["2", "3"]


def test_another_pipeline_run_has_runs_of_its_own(layout, recipe, monkeypatch):
    write_training(layout)
    publish(recipe, layout, ["rl"])
    monkeypatch.setenv("CASCADE_RUN_ID", "flow-2")
    publish(recipe, layout, ["rl"])
    assert {run.data.tags[mlflow_store.RUN_ID] for run in runs_of(layout)["rl"]} == {
        "flow-2",
        (layout.root / ".cascade" / "run_id").read_text().strip(),
    }


def test_more_points_than_fit_one_call(layout, recipe):
    journal = Journal(layout.journal("rl"))
    for step in range(30):
        journal.metrics({f"metric/{i}": float(i) for i in range(70)}, step)
    journal.params({f"key{i}": i for i in range(150)})
    assert publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    assert len(run.data.metrics) == 70
    assert len(run.data.params) == 150
    assert len(client_of(layout).get_metric_history(run.info.run_id, "metric/69")) == 30


def test_a_file_is_logged_again_only_when_it_changed(layout, recipe):
    file = layout.root / "file.txt"
    file.write_text("one")
    Journal(layout.journal("rl")).artifact(file)
    publish(recipe, layout, ["rl"])
    file.write_text("two")
    publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    client_of(layout).download_artifacts(run.info.run_id, "file.txt", str(layout.root / "mlflow"))
    assert (
        hash_file(file) == hash_file(layout.root / "mlflow" / "file.txt") == run.data.tags["cascade.artifact/file.txt"]
    )


def test_names_that_mlflow_refuses_are_rewritten(layout, recipe):
    journal = Journal(layout.journal("rl"))
    journal.metrics({"eval/c++ (hard)/pass@1": 0.5}, 0)
    journal.params({"mix": {"c++": 1.0}})
    journal.tags({"teacher/c++": "sft"})
    assert publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    assert run.data.metrics == {"eval/c__ _hard_/pass_at_1": 0.5}
    assert run.data.params == {"mix.c__": "1.0"}
    assert run.data.tags["teacher/c__"] == "sft"


def test_an_evaluation_of_an_older_checkpoint_does_not_count(layout, recipe):
    write_training(layout)
    evaluation = evaluation_journal(layout, "rl")
    evaluation.metrics({"eval/one/avg@k": 0.25}, 0)
    evaluation.tags({EVALUATED: "older"})
    publish(recipe, layout, ["rl"])
    assert "eval/one/avg_at_k" not in runs_of(layout)["rl"][0].data.metrics
    evaluation.tags({EVALUATED: "c1"})
    publish(recipe, layout, ["rl"])
    assert runs_of(layout)["rl"][0].data.metrics["eval/one/avg_at_k"] == 0.25


def test_datasets_and_dvc_hashes_are_named(layout, recipe):
    journal = write_training(layout)
    journal.dataset("benchmark/one", layout.root / "one.parquet", "d" * 64, "evaluation")
    lock = {
        "schema": "2.0",
        "stages": {
            "rl@rl": {
                "cmd": "x",
                "deps": [{"path": "data/rl", "md5": "aa.dir"}],
                "outs": [{"path": "models/rl", "md5": "bb.dir"}],
            },
            "rl@other": {"cmd": "x", "outs": [{"path": "models/other", "md5": "cc.dir"}]},
        },
    }
    (layout.root / "dvc.lock").write_text(json.dumps(lock))
    for _ in range(2):
        publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    assert run.data.tags["dvc/data/rl"] == "aa.dir"
    assert run.data.tags["dvc/models/rl"] == "bb.dir"
    assert "dvc/models/other" not in run.data.tags
    assert [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs] == [("benchmark/one", "d" * 36)]


def test_a_base_model_may_lie_outside_the_project(layout, recipe):
    write_training(layout)
    outside = {"/disk/models/base": "aa.dir", "../shared/base": "bb.dir"}
    deps = [{"path": path, "md5": digest} for path, digest in outside.items()]
    (layout.root / "dvc.lock").write_text(
        json.dumps({"schema": "2.0", "stages": {"rl@rl": {"cmd": "x", "deps": deps}}})
    )
    publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    assert run.data.tags["dvc/disk/models/base"] == "aa.dir"
    assert run.data.tags["dvc/_/shared/base"] == "bb.dir"


def test_the_active_run_of_the_environment_is_left_alone(layout, recipe, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    write_training(layout)
    assert publish(recipe, layout, ["rl"])
    assert "0123456789abcdef0123456789abcdef" not in {run.info.run_id for run in runs_of(layout)["rl"]}


def test_the_report_belongs_to_the_parent(layout, recipe):
    (layout.root / "figure.png").write_text("png")
    Journal(layout.journal("report")).artifact(layout.root / "figure.png", "figures")
    publish(recipe, layout, [])
    (parent,) = runs_of(layout)[PIPELINE]
    assert [f.path for f in client_of(layout).list_artifacts(parent.info.run_id, "figures")] == ["figures/figure.png"]


def test_processes_at_once_make_one_run(layout, recipe):
    write_training(layout)
    client_of(layout).search_experiments()
    threads = [threading.Thread(target=lambda: Publisher(recipe, layout).node("rl")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {node: len(found) for node, found in runs_of(layout).items()} == {PIPELINE: 1, "rl": 1}


def test_publishers_at_once_tell_of_the_parent_without_getting_in_each_others_way(layout, recipe, monkeypatch):
    layout.params.write_text("name: small\n")
    tell, together, told_tags = MlflowClient.set_tag, threading.Barrier(4), []

    def tell_together(self, *what):
        told_tags.append(what)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.5)  # all have read what the run has before any adds to it, unless they take turns
        tell(self, *what)

    monkeypatch.setattr(MlflowClient, "set_tag", tell_together)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: Publisher(recipe, layout).parent(), range(4)))
    [parent] = runs_of(layout)[PIPELINE]
    assert told == [parent.info.run_id] * 4
    assert len(told_tags) == 1
    assert parent.data.tags["recipe"] == recipe.name


def test_nodes_that_never_ran_have_no_run_and_the_parent_ends_as_its_nodes_did(layout, recipe):
    write_training(layout)
    publish(recipe, layout, ["sft", "rl"])
    assert set(runs_of(layout)) == {PIPELINE, "rl"}
    assert runs_of(layout)[PIPELINE][0].info.status == "FINISHED"
    Journal(layout.journal("rl")).status("failed")
    publish(recipe, layout, ["sft", "rl"])
    assert runs_of(layout)[PIPELINE][0].info.status == "FAILED"


# Outages


def test_an_outage_is_said_once_and_made_up_for_later(layout, recipe, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_training(layout)
    assert not publish(recipe, layout, ["rl"])
    assert not publish(recipe, layout, ["rl"])
    told = capsys.readouterr().err
    assert told.count("published later") == 1
    assert "127.0.0.1:9" in told
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert publish(recipe, layout, ["rl"])
    assert len(runs_of(layout)["rl"]) == 1


def test_what_mlflow_refuses_is_said_and_keeps_nothing_else_from_being_published(layout, recipe, capsys):
    write_training(layout)
    Journal(layout.journal("release")).model("org/miniature", "champion", {"checkpoint_hash": "c1"})
    write_training(layout, "sft")
    for _ in range(2):
        assert not publish(recipe, layout, ["rl", "release", "sft"])
    told = capsys.readouterr().err
    assert told.count("refuses: ") == 1
    assert "org/miniature" in told
    assert "published later" not in told
    runs = runs_of(layout)
    assert {node: [run.info.status for run in found] for node, found in runs.items()} == {
        node: ["FINISHED"] for node in (PIPELINE, "rl", "release", "sft")
    }


def test_an_outage_and_a_refusal_are_each_said_once(layout, recipe, monkeypatch, capsys):
    Journal(layout.journal("release")).model("miniature", "latest", {"checkpoint_hash": "c1"})
    publish(recipe, layout, ["release"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for _ in range(2):
        publish(recipe, layout, ["release"])
    told = capsys.readouterr().err
    assert (told.count("refuses: "), told.count("published later")) == (1, 1)


NAMES = [
    "org/model",
    "a:b",
    "",
    " ",
    ".",
    "..",
    "a/../b",
    "it's",
    'say "it"',
    "x" * 300,
    "a\nb",
    " a",
    "a\\b",
    "é",
    "v2.1 b",
]
ALIASES = ["latest", "LATEST", "v1", "V12", "", "a b", "a.b", "champion!", "x" * 300, "best-1", "version", "a\n", "é"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_the_recipe_takes_is_one_that_mlflow_takes(layout, recipe, name):
    content = recipe.model_dump(mode="json")
    content["gate"]["release"]["registered_name"] = content["family"] = content["name"] = name
    try:
        taken = Recipe.model_validate(content)
    except ValidationError:
        return
    Journal(layout.journal("release")).model(
        taken.gate["release"].registered_name, "champion", {"checkpoint_hash": "c"}
    )
    assert publish(taken, layout, ["release"])
    assert client_of(layout).get_model_version_by_alias(name, "champion").tags["checkpoint_hash"] == "c"


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_that_the_recipe_takes_is_one_that_mlflow_takes(layout, recipe, alias):
    content = recipe.model_dump(mode="json")
    content["gate"]["release"]["alias"] = alias
    try:
        taken = Recipe.model_validate(content)
    except ValidationError:
        return
    Journal(layout.journal("release")).model("miniature", taken.gate["release"].alias, {"checkpoint_hash": "c"})
    assert publish(taken, layout, ["release"])
    assert client_of(layout).get_model_version_by_alias("miniature", alias).tags["checkpoint_hash"] == "c"


def test_without_mlflow_the_journal_is_kept(layout, recipe, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with live(recipe, layout, "rl"):
        write_training(layout)
    assert "MLflow is not installed" in capsys.readouterr().err
    assert Journal(layout.journal("rl")).entries()[-1]["value"] == "finished"


# Live


def test_a_node_is_seen_while_it_runs_and_its_end_is_known(layout, recipe, monkeypatch):
    monkeypatch.setattr(background, "INTERVAL", 0.05)
    with live(recipe, layout, "rl"):
        write_training(layout)
        seen = _wait_for(lambda: runs_of(layout).get("rl"))
        assert seen[0].info.status == "RUNNING"
        assert runs_of(layout)[PIPELINE][0].info.status == "RUNNING"
    found = runs_of(layout)["rl"][0]
    assert found.info.status == "FINISHED"
    assert found.data.tags[mlflow_store.MADE_IN] == found.data.tags[mlflow_store.RUN_ID]


def test_a_node_that_raised_is_failed_and_running_again_when_rerun(layout, recipe):
    write_training(layout)
    with pytest.raises(RuntimeError), live(recipe, layout, "rl"):
        raise RuntimeError
    assert runs_of(layout)["rl"][0].info.status == "FAILED"
    Publisher(recipe, layout).node("rl", running=True)
    assert runs_of(layout)["rl"][0].info.status == "RUNNING"
    with live(recipe, layout, "rl"):
        pass
    assert [run.info.status for run in runs_of(layout)["rl"]] == ["FINISHED"]


def test_who_follows_a_node_publishes_in_its_place(layout, recipe, monkeypatch):
    monkeypatch.setattr(background, "INTERVAL", 0.05)
    program = """
import sys
from pathlib import Path
from cascade.layout import Layout
from cascade.recipe import load
from cascade.tracking import Journal, live
layout = Layout(Path.cwd())
with live(load(Path(sys.argv[1])), layout, "rl"):
    Journal(layout.journal("rl")).metrics({"train/loss": 0.5}, 0)
assert "mlflow" not in sys.modules
"""
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(project / "recipes" / "nano.yaml")]
    with following(recipe, layout, "rl") as followed:
        environment = {**os.environ, **followed, "PYTHONPATH": str(project)}
        subprocess.run(command, cwd=layout.root, env=environment, check=True)
    (run,) = runs_of(layout)["rl"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss"] == 0.5
    assert "system/system_memory_usage_megabytes" in run.data.metrics


def test_a_node_that_was_killed_is_running_until_it_is_run_again(layout, recipe):
    with following(recipe, layout, "rl"):
        write_training(layout)  # and says nothing of its end
    assert [run.info.status for run in runs_of(layout)["rl"]] == ["RUNNING"]
    with following(recipe, layout, "rl"), live(recipe, layout, "rl"):
        pass
    assert [run.info.status for run in runs_of(layout)["rl"]] == ["FINISHED"]


def test_following_a_node_that_is_up_to_date_says_nothing(layout, recipe):
    write_training(layout)
    with following(recipe, layout, "rl"):
        pass
    assert "rl" not in runs_of(layout)


def _wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


# The registry


def test_a_passed_checkpoint_is_one_version_under_its_alias(layout, recipe):
    journal = Journal(layout.journal("release"))
    journal.model("miniature", "champion", {"checkpoint_hash": "c1", "node": "mopd"})
    for _ in range(2):
        assert publish(recipe, layout, ["release"])
    client = client_of(layout)
    version = client.get_model_version_by_alias("miniature", "champion")
    assert (version.version, version.tags["node"]) in (("1", "mopd"), (1, "mopd"))
    assert len(client.search_model_versions("name = 'miniature'")) == 1
    assert version.source == f"runs:/{version.run_id}/checkpoint"


def test_the_next_checkpoint_takes_the_alias_over_and_a_replay_does_not_take_it_back(layout, recipe):
    journal = Journal(layout.journal("release"))
    for content in ("c1", "c2"):
        journal.model("miniature", "champion", {"checkpoint_hash": content})
        publish(recipe, layout, ["release"])
    client = client_of(layout)
    assert client.get_model_version_by_alias("miniature", "champion").tags["checkpoint_hash"] == "c2"
    client.set_registered_model_alias("miniature", "champion", "1")
    publish(recipe, layout, ["release"])
    assert client.get_model_version_by_alias("miniature", "champion").tags["checkpoint_hash"] == "c1"


def test_a_version_says_what_the_gate_knew(layout, recipe):
    journal = Journal(layout.journal("release"))
    tags = {"checkpoint_hash": "c1", "node": "mopd", "parent": "rl", "score/one": "0.8500", "teacher/one": "rl abc"}
    journal.model("miniature", "champion", tags)
    publish(recipe, layout, ["release"])
    description = client_of(layout).get_model_version_by_alias("miniature", "champion").description
    assert "| one | 0.8500 | rl abc |" in description
    assert "- checkpoint hash: `c1`" in description


# The pages


def test_runs_say_what_they_are_and_what_a_person_wrote_stays(layout, recipe):
    write_training(layout)
    publish(recipe, layout, ["rl"])
    runs = runs_of(layout)
    (parent,), (child,) = runs[PIPELINE], runs["rl"]
    assert child.data.tags[NOTE].startswith("reinforcement learning, from sft: 4 steps of 4 prompts × 4 rollouts")
    assert "log-probabilities, entropies and KL in nats" in child.data.tags[NOTE]
    assert "- **release**: lets mopd pass" in parent.data.tags[NOTE]
    (experiment,) = client_of(layout).search_experiments(filter_string="name = 'miniature'")
    assert experiment.tags[NOTE].startswith("All runs of recipe family **miniature**")
    client_of(layout).set_tag(child.info.run_id, NOTE, "look at step 3")
    publish(recipe, layout, ["rl"])
    assert runs_of(layout)["rl"][0].data.tags[NOTE] == "look at step 3"


def test_a_table_is_shown_as_one(layout, recipe):
    journal = write_training(layout)
    write_table(layout.root / "rollouts.json", [{"step": 0, "reward": 0.5}, {"step": 1, "reward": None}])
    journal.table(layout.root / "rollouts.json", "samples")
    for _ in range(2):
        publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples/rollouts.json", "type": "table"}]
    # As MLflow's own load_table reads it.
    path = client_of(layout).download_artifacts(run.info.run_id, "samples/rollouts.json", str(layout.root / "mlflow"))
    table = pandas.read_json(path, orient="split")
    assert table.step.tolist() == [0, 1]
    assert table.reward[0] == 0.5


def test_system_metrics_of_this_run_alone_are_published_once(layout, recipe):
    system_journal(layout, "rl").metrics({"system/cpu_utilization_percentage": 99.0}, 0)  # of an earlier run
    write_training(layout)
    for value in (10.0, 20.0):
        system_journal(layout, "rl").metrics({"system/cpu_utilization_percentage": value}, 0)
        publish(recipe, layout, ["rl"])
    (run,) = runs_of(layout)["rl"]
    points = client_of(layout).get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert [point.value for point in points] == [10.0, 20.0]


def test_what_an_earlier_run_left_is_not_shown_as_running(layout, recipe, monkeypatch):
    monkeypatch.setattr(background, "INTERVAL", 0.05)
    write_training(layout)
    publish(recipe, layout, ["rl"])
    with live(recipe, layout, "rl"):
        time.sleep(0.5)  # loading a model, before the node says what it is made from
        assert runs_of(layout)["rl"][0].info.status == "FINISHED"
        write_training(layout, inputs_hash="i2")
        _wait_for(lambda: len(runs_of(layout)["rl"]) == 2)
    assert [run.info.status for run in runs_of(layout)["rl"]] == ["FINISHED", "FINISHED"]
    assert "system/process_memory_usage_megabytes" in runs_of(layout)["rl"][0].data.metrics
