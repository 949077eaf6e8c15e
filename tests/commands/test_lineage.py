"""From a model back to all behind it, and from data forward, in a real MLflow store."""

import json

import pytest
from click.testing import CliRunner

from cascade.cli import main
from cascade.commands.compare import compare
from cascade.commands.lineage import backward, forward
from cascade.commands.lineage.tree import Branch
from cascade.errors import CascadeError
from cascade.tracking import publish
from cascade.tracking.runs import node_of, open_runs
from cascade.utils.files import hash_directory, hash_file
from tests.evaluation.project import recipe_with_gate
from tests.evaluation.tracked import SOLVED, run_pipeline


@pytest.fixture(scope="module")
def project(module_layout, module_monkeypatch):
    module_monkeypatch.setenv("CASCADE_RUN_ID", "first")
    return first_run(module_layout)


def first_run(layout):
    outs = [{"path": "data/rl", "md5": "abcdef123456.dir"}]
    (layout.root / "dvc.lock").write_text(
        json.dumps({"schema": "2.0", "stages": {"curate": {"cmd": "x", "outs": outs}}})
    )
    run_pipeline(recipe_with_gate(), layout)
    return layout


def short(layout, node):
    return hash_directory(layout.checkpoint(node))[:12]


def test_a_tree_is_drawn():
    root = Branch("a")
    root.add("b").add("c")
    root.add("d").add("e")
    assert root.lines() == ["a", "├─ b", "│  └─ c", "└─ d", "   └─ e"]


def test_a_registered_model_leads_to_everything_behind_it(project):
    tree = backward("miniature", project)
    text = "\n".join(tree)
    assert tree[0] == "miniature version 1 (champion)"
    assert tree[1].startswith("├─ passed the gate of run first/release, recipe miniature, recipe hash ")
    assert tree[2] == f"└─ mopd  checkpoint {short(project, 'mopd')}  run first/mopd"
    # Teachers: rl for `one`, sft for `two`; rl is the start as well, and told once.
    assert f"teacher of one: rl  checkpoint {short(project, 'rl')}" in text
    assert f"teacher of two: sft  checkpoint {short(project, 'sft')}" in text
    assert f"starts from rl  checkpoint {short(project, 'rl')}  run first/rl  (see above)" in text
    assert f"starts from base  checkpoint {short(project, 'base')}" in text
    for path in (project.prompts("one"), project.benchmark("two"), project.sft_data / "part-00000.parquet"):
        assert hash_file(path)[:12] in text
    assert "training data training/one" in text
    assert "dvc abcdef123456.dir" in text
    assert f"curation data source/raw  sha256 {hash_file(project.root / 'raw.jsonl')[:12]}" in text
    assert backward("miniature/1", project) == tree


def test_a_node_and_a_metric_lead_to_the_same_origin(project):
    node = backward("rl", project)
    metric = backward("rl:eval/one/avg@k", project)
    assert node[0] == f"rl  checkpoint {short(project, 'rl')}  run first/rl"
    assert metric[0] == "eval/one/avg@k = 0.875"
    assert metric[1] == f"└─ measured on {node[0]}"
    assert [line[3:] for line in metric[2:]] == node[1:]


def test_the_checkpoint_that_lies_here_is_meant_not_the_newest(layout, recipe, monkeypatch):
    monkeypatch.setenv("CASCADE_RUN_ID", "first")
    project = first_run(layout)
    first = short(project, "rl")
    monkeypatch.setenv("CASCADE_RUN_ID", "second")
    content = (project.checkpoint("rl") / "config.json").read_bytes()
    run_pipeline(recipe, project, {**SOLVED, "rl": (39, 25), "mopd": (38, 30)})
    assert short(project, "rl") != first
    assert "run second/rl" in backward("rl", project)[0]
    (project.checkpoint("rl") / "config.json").write_bytes(content)
    assert backward("rl", project)[0] == f"rl  checkpoint {first}  run first/rl"
    assert "run second/rl" in "\n".join(backward("miniature/2", project))


def test_a_run_that_found_everything_up_to_date_made_nothing(layout, recipe, monkeypatch):
    monkeypatch.setenv("CASCADE_RUN_ID", "first")
    project = first_run(layout)
    runs = open_runs(project)
    runs.client.set_tag(runs.named("first").info.run_id, "git_revision", "abc")
    before = {what: backward(what, project) for what in ("rl", "miniature", "rl:eval/one/avg@k")}
    touched = forward("training/one", project)
    monkeypatch.setenv("CASCADE_RUN_ID", "second")
    for node in ("sft", "mopd"):
        # As in a directory of its own: DVC had the checkpoint, and nothing but its evaluation is told.
        project.journal(node).unlink()
    assert publish(recipe, project, ["curate", *recipe.ordered()])
    runs = open_runs(project)
    runs.client.set_tag(runs.named("second").info.run_id, "git_revision", "def")
    assert {node_of(run) for run in runs.children(runs.named("second"))} == {"curate", *recipe.ordered()}
    assert "code abc" in before["rl"][1]
    assert {what: backward(what, project) for what in before} == before
    assert backward("second/rl", project) == before["rl"]
    assert backward("mopd", project)[0] == f"mopd  checkpoint {short(project, 'mopd')}  run first/mopd"
    assert forward("training/one", project) == touched
    found = compare("sft", "mopd", project)
    assert (found.first, found.second) == ("second/sft (made by first/sft)", "second/mopd (made by first/mopd)")
    assert ("init", "base", "rl") in found.settings
    assert [(c.first, c.second) for c in found.costs] == [((25.0, 2000), (50.0, 4000))]


def test_each_benchmark_is_named_once(project):
    told = [line for line in backward("miniature", project) if "evaluation data benchmark/one" in line]
    assert len(told) == 1
    assert "\n".join(backward("miniature", project)).count("evaluated on 2 benchmarks (see above)") == 2


def test_what_is_not_there_is_said_in_one_line(project):
    for what, message in [
        ("nothing", "^nothing: no such run in MLflow; pipeline runs: miniature first; nodes: "),
        ("miniature/9", "^miniature/9: miniature has no version 9; it has 1$"),
        ("release", "^release: run first/release made no checkpoint"),
        ("rl:eval/one/speed", "^rl:eval/one/speed: the run has no such metric; it has eval/"),
    ]:
        with pytest.raises(CascadeError, match=message):
            backward(what, project)


def test_data_leads_to_every_model_that_it_touched(project):
    expected = forward("training/one", project)
    assert expected[1] == f"├─ trained on training/one: rl  checkpoint {short(project, 'rl')}  run first/rl"
    assert expected[2] == f"│  └─ start of mopd  checkpoint {short(project, 'mopd')}  run first/mopd"
    assert expected[3] == "│     └─ registered as miniature version 1"
    digest = hash_file(project.prompts("one"))
    for name in ("data/rl/one.parquet", digest, digest[:12]):
        assert forward(name, project)[1:] == expected[1:]
    # sft was trained on data/sft; what teaches or is started from passes it on.
    of_sft = "\n".join(forward("data/sft", project))
    assert "trained on training/part-00000: sft" in of_sft
    assert "teacher of two of mopd" in of_sft
    assert "registered as miniature version 1" in of_sft


def test_a_file_that_was_curated_touches_what_was_made_of_it(project):
    tree = "\n".join(forward("raw.jsonl", project))
    assert "trained on training/part-00000: sft" in tree
    assert tree == "\n".join(["raw.jsonl", *forward("raw", project)[1:]])


def test_a_source_of_the_recipe_is_all_that_was_made_of_its_rows(project):
    tree = forward("one", project)
    assert tree[1].startswith("├─ trained on training/part-00000: sft")
    assert any(line.strip("│├└─ ").startswith("start of rl") for line in tree)


def test_a_benchmark_only_measures(project):
    tree = forward("benchmark/one", project)
    assert [line.split(":")[0] for line in tree[1:]] == [
        "├─ measured on benchmark/one",
        "├─ measured on benchmark/one",
        "└─ measured on benchmark/one",
    ]
    with pytest.raises(CascadeError, match=r"^chess: no checkpoint in MLflow was made from or measured on such data"):
        forward("chess", project)


def test_the_command(project, monkeypatch):
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(main, ["lineage", "miniature"])
    assert (result.exit_code, result.output.splitlines()) == (0, backward("miniature", project))
    result = CliRunner().invoke(main, ["lineage", "--forward", "training/one"])
    assert result.output.splitlines() == forward("training/one", project)
