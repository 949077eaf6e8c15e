import sys
import types

import pytest
import yaml

from cascade import stages
from cascade.environments import GroupEnvironment, registry
from cascade.errors import CascadeError, CheckpointError
from cascade.evaluation import benchmark, checkpoint_runner
from cascade.evaluation.results import load_result
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.report.results import load_results
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.tracking import EVALUATED, evaluation_journal
from cascade.tracking.journal import tags_of
from cascade.tracking.publisher import Publisher
from cascade.utils.files import read_json
from cascade.utils.seeds import derive_seed
from tests.evaluation.project import recipe_with_gate
from tests.training.miniature import FindTheWord, make_checkpoint, prompt_rows, write_rows


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    module = types.ModuleType("find_the_word")
    module.ENVIRONMENT = FindTheWord()
    monkeypatch.setitem(sys.modules, "find_the_word", module)
    monkeypatch.setitem(registry.MODULES, "find_the_word", "find_the_word")


@pytest.fixture
def asked(monkeypatch):
    """The requests that the sampler got."""
    seen = []

    class Recording(TorchSampler):
        def sample(self, requests, **settings):
            seen.extend(requests)
            return super().sample(requests, **settings)

    monkeypatch.setattr(checkpoint_runner, "make_sampler", lambda engine, policy, threads: Recording(policy))
    return seen


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    make_checkpoint(layout.checkpoint("sft"), 1)
    make_checkpoint(layout.checkpoint("rl"), 2)
    for domain in ("one", "two"):
        write_rows(layout.benchmark(domain), prompt_rows(domain, 6))
    return layout


def test_every_prompt_is_answered_k_times_and_scored(layout, asked):
    summary = benchmark.evaluate(recipe_with_gate(), "sft", layout)
    assert summary == read_json(layout.evaluation("sft") / "summary.json")
    assert len(asked) == 2 * 6 * 4
    assert summary["k"] == 4
    assert [summary["domains"][d]["prompts"] for d in ("one", "two")] == [6, 6]
    assert not layout.work("sft.evaluation").exists()
    assert load_result(layout, "sft").score("one") == summary["domains"]["one"]["avg@k"]


def test_the_base_model_is_evaluated_under_its_own_name(layout, asked, monkeypatch):
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    base = make_checkpoint(layout.root / "elsewhere", 3)
    content = recipe_with_gate().model_dump(mode="json") | {"base": str(base)}
    layout.params.write_text(yaml.safe_dump(content))
    stages.evaluate_node("base", layout)
    recipe = load(layout.params)
    results = load_results(recipe, layout)
    assert list(results.summaries) == ["base"]
    assert results.score("base", "one") == load_result(layout, "base").score("one")
    assert not (layout.root / "results" / "lineage").exists()
    publisher = Publisher(recipe, layout)
    run = publisher.client.get_run(publisher.node("base"))
    assert run.data.tags["mlflow.note.content"].startswith(f"the base model, {base}")
    assert run.data.metrics["eval/one/avg_at_k"] == results.score("base", "one")


def test_a_relative_reward_is_not_used_because_it_says_nothing_between_checkpoints(layout, asked, monkeypatch):
    class Relative(FindTheWord, GroupEnvironment):
        def verify_group(self, row, responses):
            raise AssertionError("an evaluation judges every response by itself")

    absolute = benchmark.evaluate(recipe_with_gate(), "sft", layout)
    monkeypatch.setattr(sys.modules["find_the_word"], "ENVIRONMENT", Relative())
    assert benchmark.evaluate(recipe_with_gate(), "sft", layout) == absolute


def test_another_judge_is_another_evaluation_but_another_address_is_not(layout, asked):
    def inputs(**judge: object) -> dict:
        judges = {"judges": {"preference": {"url": "http://a/v1", "model": "m", **judge}}} if judge else {}
        recipe = Recipe.model_validate(recipe_with_gate().model_dump() | judges)
        benchmark.evaluate(recipe, "sft", layout)
        return read_json(layout.evaluation("sft") / "manifest.json")["inputs"]

    assert "judges" not in inputs()
    one = inputs(model="m")
    assert one["judges"]["preference"]["model"] == "m"
    assert inputs(url="http://b/v1", concurrency=2) == one
    assert inputs(model="n") != one


def test_seeds_are_of_prompt_and_rollout_alone_so_checkpoints_are_paired(layout, asked):
    benchmark.evaluate(recipe_with_gate(), "sft", layout)
    first = list(asked)
    asked.clear()
    benchmark.evaluate(recipe_with_gate(), "rl", layout)
    assert [request.seed for request in asked] == [request.seed for request in first]
    assert first[1].seed == derive_seed(0, "benchmark", "one-0", 1)
    assert len({request.seed for request in first}) == len(first)


def test_equal_bytes_every_time(layout, asked, tmp_path):
    recipe = recipe_with_gate()
    benchmark.evaluate(recipe, "sft", layout)
    benchmark.evaluate(recipe, "sft", layout, layout.checkpoint("sft"), tmp_path / "again")
    for file in ("rollouts.parquet", "prompts.csv", "summary.json", "manifest.json"):
        assert (layout.evaluation("sft") / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_killed_evaluation_goes_on_after_the_finished_domains(layout, asked, monkeypatch):
    recipe = recipe_with_gate()
    real = checkpoint_runner.CheckpointRunner.run

    def dying(self, prompts):
        if prompts[0].domain == "two":
            raise KeyboardInterrupt
        return real(self, prompts)

    monkeypatch.setattr(checkpoint_runner.CheckpointRunner, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate(recipe, "sft", layout)
    assert not (layout.evaluation("sft") / "summary.json").exists()
    monkeypatch.setattr(checkpoint_runner.CheckpointRunner, "run", real)
    asked.clear()
    benchmark.evaluate(recipe, "sft", layout)
    assert len(asked) == 6 * 4


def test_a_killed_evaluation_is_not_continued_with_another_checkpoint(layout, asked, monkeypatch):
    recipe = recipe_with_gate()

    def killed(path, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate(recipe, "sft", layout)
    monkeypatch.undo()
    monkeypatch.setitem(registry.MODULES, "find_the_word", "find_the_word")
    monkeypatch.setitem(sys.modules, "find_the_word", types.SimpleNamespace(ENVIRONMENT=FindTheWord()))
    kept = {path.name: path.stat().st_mtime_ns for path in layout.work("sft.evaluation").rglob("*.parquet")}
    make_checkpoint(layout.checkpoint("sft"), 3)
    benchmark.evaluate(recipe, "sft", layout)
    expected = layout.root / "out"
    benchmark.evaluate(recipe, "rl", layout, layout.checkpoint("sft"), expected)
    assert len(kept) == 2
    assert (layout.evaluation("sft") / "rollouts.parquet").read_bytes() == (expected / "rollouts.parquet").read_bytes()


def test_the_journal_has_the_scores_the_checkpoint_and_the_benchmarks(layout, asked):
    summary = benchmark.evaluate(recipe_with_gate(), "sft", layout)
    entries = evaluation_journal(layout, "sft").entries()
    values = {k: v for e in entries if e["kind"] == "metrics" for k, v in e["values"].items()}
    assert values["eval/one/avg@k"] == summary["domains"]["one"]["avg@k"]
    assert values["eval/pass@1"] == summary["mean"]["pass@1"]
    assert tags_of(entries)[EVALUATED] == read_json(layout.evaluation("sft") / "manifest.json")["checkpoint"]
    assert {e["name"] for e in entries if e["kind"] == "dataset"} == {"benchmark/one", "benchmark/two"}


def test_an_evaluation_written_elsewhere_leaves_the_journal_alone(layout, asked, tmp_path):
    benchmark.evaluate(recipe_with_gate(), "sft", layout, layout.checkpoint("rl"), tmp_path / "out")
    assert not evaluation_journal(layout, "sft").entries()
    assert not layout.evaluation("sft").exists()


def test_a_few_failed_verdicts_are_counted_many_stop(layout, asked):
    rows = [*prompt_rows("one", 19), {**prompt_rows("one", 20, fail="timeout")[19], "id": "failing"}]
    write_rows(layout.benchmark("one"), rows)
    summary = benchmark.evaluate(recipe_with_gate(), "sft", layout)
    assert (summary["domains"]["one"]["failures"], summary["domains"]["one"]["prompts"]) == (4, 19)
    write_rows(layout.benchmark("one"), prompt_rows("one", 4, fail="raise"))
    with pytest.raises(CascadeError, match=r"one: 16 of 16 rollouts have no verdict \(verifier_error 16\)"):
        benchmark.evaluate(recipe_with_gate(), "sft", layout)


def test_missing_inputs_are_named(layout, asked):
    with pytest.raises(CheckpointError, match=r"models/mopd: no checkpoint there"):
        benchmark.evaluate(recipe_with_gate(), "mopd", layout)
    layout.benchmark("two").unlink()
    with pytest.raises(CascadeError, match=r"two\.parquet: no such file"):
        benchmark.evaluate(recipe_with_gate(), "sft", layout)
