"""Undecided domains are evaluated further: what is sampled, kept, taken again, and counted."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory
from cascade.decisions.regression import compare_with_best, halves
from cascade.decisions.repair import check, repair
from cascade.errors import CascadeError
from cascade.evaluation import benchmark, checkpoint_runner, further
from cascade.evaluation.further import FurtherRollouts, Sample
from cascade.evaluation.results import EvaluationResult, PromptResult
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import read_json, write_json
from cascade.utils.seeds import derive_seed
from tests.evaluation.project import GATE
from tests.training.miniature import make_checkpoint, make_recipe, prompt_rows, write_rows
from tests.training.test_resume import Killed

NODES = ("sft", "rl", "mopd")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Three checkpoints that answer at random, evaluated on 8 prompts a domain, with 20 further ones in `one`."""
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    layout = Layout(tmp_path)
    write_json(layout.params, {})
    write_json(layout.decision("choose"), {"teachers": {}})
    for seed, node in enumerate(NODES):
        make_checkpoint(layout.checkpoint(node), seed)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20))
        write_rows(layout.benchmark(domain), prompt_rows(domain, 8))
    rows = prompt_rows("one", 20)
    write_rows(layout.held_out("one"), [{**row, "id": f"held out {number}"} for number, row in enumerate(rows)])
    for node in NODES:
        benchmark.evaluate(make_recipe(), node, layout)
    return layout


def recipe(budget: float = 4.0) -> Recipe:
    made = make_recipe(mend={"steps": 1, "budget": budget}).model_dump(mode="json")
    release = {**GATE, "candidate": "mopd", "budget": budget}
    return Recipe.model_validate({**made, "gate": {"release": release}})


def sampled(layout: Layout, node: str) -> list[dict]:
    return pq.read_table(layout.check(node) / "rollouts.parquet").to_pylist()


def test_undecided_domains_get_further_rollouts_of_both_checkpoints(layout: Layout) -> None:
    decision = repair(recipe(), "mend", layout, FileHistory(layout))
    lines = sampled(layout, "mend")
    assert len(lines) == sum(found["further_rollouts"] for found in decision["domains"].values()) > 0
    one, two = decision["domains"]["one"], decision["domains"]["two"]
    of_one = [line for line in lines if line["domain"] == "one"]
    # Looks of 4, 8, 16 and 24 of 24 prompts, of which 4 are the benchmark's, and more rollouts of these where needed.
    assert {line["node"] for line in of_one} == {"mopd", one["best"]}
    ids = {line["prompt_id"] for line in of_one if line["prompt_id"].startswith("held")}
    assert len(ids) in (4, 12, 20)
    assert one["prompts"] == 4 + len(ids)
    for node in ("mopd", one["best"]):
        keys = [(line["prompt_id"], line["rollout"]) for line in of_one if line["node"] == node]
        assert len(set(keys)) == len(keys)
        assert {(p, r) for p, r in keys if r == 0} == {(p, 0) for p in ids}
    # Domain two has no further prompts: rollouts 1, 2, … of the tested ones.
    assert {line["rollout"] for line in lines if line["domain"] == "two"} == set(range(1, 2 ** (two["looks"] - 1)))
    assert two["prompts"] == 4
    assert read_json(layout.decision("mend"))["domains"] == decision["domains"]


def test_without_a_budget_nothing_is_sampled(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_runner, "CheckpointRunner", None)  # whoever would sample fails
    decision = gate(recipe(budget=0), "release", layout, FileHistory(layout))
    assert {found["looks"] for found in decision["domains"].values()} == {1}
    assert sampled(layout, "release") == []


def test_a_checkpoint_is_sampled_once_for_all_checks(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = repair(recipe(), "mend", layout, FileHistory(layout))
    monkeypatch.setattr(checkpoint_runner, "CheckpointRunner", None)
    judged = gate(recipe(), "release", layout, FileHistory(layout))
    assert judged["domains"] == checked["domains"]
    assert sampled(layout, "release") == sampled(layout, "mend")


def test_a_killed_check_goes_on_where_it_was(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further, "CHUNK", 3)
    expected = gate(recipe(), "release", layout, FileHistory(layout))
    whole = (layout.check("release") / "rollouts.parquet").read_bytes()
    work = layout.work("checks")
    kept = {path: path.read_bytes() for path in work.iterdir()}
    for path in kept:
        path.unlink()
    written: list[Path] = []

    def write(path: Path, lines: list[dict]) -> None:
        if len(written) == 3:
            raise Killed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept[path])  # the same bytes, of the same chunk
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(further, "write_rollouts", write)
        with pytest.raises(Killed):
            gate(recipe(), "release", layout, FileHistory(layout))
    assert gate(recipe(), "release", layout, FileHistory(layout)) == expected
    assert (layout.check("release") / "rollouts.parquet").read_bytes() == whole
    assert {path: path.read_bytes() for path in work.iterdir()} == kept


def test_a_resumed_repair_has_the_rollouts_of_its_decision(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    repair(recipe(), "mend", layout, FileHistory(layout))
    before = sampled(layout, "mend")
    monkeypatch.setattr(checkpoint_runner, "CheckpointRunner", None)
    (layout.check("mend") / "rollouts.parquet").unlink()  # as DVC does with the outputs of what it runs again
    repair(recipe(), "mend", layout, FileHistory(layout))
    assert sampled(layout, "mend") == before


def test_rollouts_continue_the_seeds_of_the_evaluation(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pass 0 sampled again, they are the evaluation's."""
    prompts = tuple(row["id"] for row in prompt_rows("two", 8))
    evaluated = pq.read_table(layout.evaluation("rl") / "rollouts.parquet").to_pylist()
    with FurtherRollouts(recipe(), layout, {"rl": "hash"}) as rollouts:
        rollouts.sample([Sample("rl", "two", prompts, 0)])
        rollouts.write(layout.root / "again.parquet")
        assert rollouts.prompts("one") == [f"held out {number}" for number in range(20)]
        assert rollouts.prompts("two") == []
        assert rollouts.count("rl", "two") == 8
        with pytest.raises(CascadeError, match="further rollouts of rl, two: prompt x is neither in"):
            rollouts.sample([Sample("rl", "two", ("x",), 1)])
    again = pq.read_table(layout.root / "again.parquet").to_pylist()
    assert [{k: v for k, v in line.items() if k != "node"} for line in again] == [
        line for line in evaluated if line["domain"] == "two"
    ]


# The rounds, with rewards that a test makes up


class MadeUp:
    """Domain → what the candidate gains on each prompt over the reference; asked for are recorded."""

    def __init__(self, gains: dict[str, float], pool: int = 1000):
        self.gains, self.pool = gains, pool
        self.asked: list[list[str]] = []
        self.drawn: dict[tuple[str, str], dict[str, list[float]]] = {}

    def prompts(self, domain: str) -> list[str]:
        return [f"more {number}" for number in range(self.pool)]

    def reward(self, node: str, domain: str, prompt: str, number: int) -> float:
        chance = 0.5 + (self.gains[domain] if node == "mopd" else 0.0)
        return float(derive_seed("made up", domain, prompt, number) % 1000 < 1000 * chance)

    def sample(self, samples: list[Sample]) -> None:
        self.asked.append(sorted({sample.domain for sample in samples}))
        for sample in samples:
            store = self.drawn.setdefault((sample.node, sample.domain), {})
            for prompt in sample.prompts:
                rewards = store.setdefault(prompt, [])
                rewards.append(self.reward(sample.node, sample.domain, prompt, sample.number))

    def results(self, node: str, domain: str) -> list[PromptResult]:
        drawn = self.drawn.get((node, domain), {})
        return [PromptResult(p, len(rewards), 0, sum(rewards) / len(rewards)) for p, rewards in drawn.items()]

    def count(self, node: str, domain: str) -> int:
        return sum(result.rollouts for result in self.results(node, domain))

    def evaluations(self, prompts: int = 40) -> dict[str, EvaluationResult]:
        return {
            node: EvaluationResult(
                node,
                node,
                {
                    domain: [PromptResult(f"p{n}", 1, 0, self.reward(node, domain, f"p{n}", 0)) for n in range(prompts)]
                    for domain in self.gains
                },
            )
            for node in NODES
        }


def compare(made_up: MadeUp, **rules: float) -> dict[str, dict]:
    made = make_recipe(mend=rules)
    return compare_with_best(made, made.repair["mend"], "mopd", made_up.evaluations(), made_up)


def test_the_worse_half_goes_on_first_and_what_is_decided_costs_nothing_more() -> None:
    made_up = MadeUp({"one": -0.2, "two": 0.0})
    found = compare(made_up, budget=100)
    # Two domains are undecided, and one has the larger loss; then only the other is left.
    assert made_up.asked[0] == ["one"]
    assert (found["one"]["verdict"], found["two"]["verdict"]) == ("regressed", "not regressed")
    last = len(made_up.asked) - made_up.asked[::-1].index(["one"])
    assert all(asked == ["two"] for asked in made_up.asked[last:])
    assert found["one"]["further_rollouts"] == sum(made_up.count(n, "one") for n in ("mopd", found["one"]["best"]))


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_the_budget_is_not_exceeded(budget: float) -> None:
    made_up = MadeUp({"one": -0.03, "two": -0.03})
    found = compare(made_up, budget=budget)
    # Of two domains of 40 prompts, one rollout each; of the candidate alone.
    spent = sum(made_up.count("mopd", domain) for domain in found)
    assert 0 < spent <= budget * 2 * 40
    assert all(found[d]["visible_loss"] > 0.05 for d in found if found[d]["verdict"] == "undecided")


def test_the_best_is_chosen_by_other_prompts_than_it_is_tested_on() -> None:
    """A checkpoint that is lucky on the choosing half alone is chosen, and its luck is not held against the others."""
    made_up = MadeUp({"one": 0.0, "two": 0.0})
    results = made_up.evaluations()
    choosing, testing = halves("one", 0, list(results.values()))
    assert (len(choosing), len(testing), choosing & testing) == (20, 20, set())
    lucky = [
        PromptResult(r.prompt_id, 1, 0, 1.0 if r.prompt_id in choosing else r.reward) for r in results["rl"].of("one")
    ]
    results["rl"] = EvaluationResult("rl", "rl", {**results["rl"].domains, "one": lucky})
    made = make_recipe()
    found = compare_with_best(made, made.repair["mend"], "mopd", results, made_up)
    assert found["one"]["best"] == "rl"
    assert found["one"]["difference"] == 0.0
    assert found["one"]["best_score"] > found["one"]["score"]


def test_several_processes_start_from_what_one_decided(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade.decisions.repair.distributed.size", lambda: 2)
    monkeypatch.setattr("cascade.decisions.repair.open_history", lambda recipe, layout: FileHistory(layout))
    with pytest.raises(CascadeError, match="mend: not decided yet, which takes one process; `cascade check mend`"):
        check(recipe(), "mend", layout)
    with monkeypatch.context() as patch:
        patch.setattr("cascade.decisions.repair.distributed.size", lambda: 1)
        decided = check(recipe(), "mend", layout)
    monkeypatch.setattr(checkpoint_runner, "CheckpointRunner", None)
    assert check(recipe(), "mend", layout) == decided
