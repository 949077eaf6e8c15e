import shutil

import pytest

from benchmarks.distillation import jobs, start, table
from benchmarks.distillation.jobs import Place, Run
from benchmarks.distillation.variants import LONGER, STEPS, VARIANTS
from cascade.utils.files import write_json

TEACHERS = {"math": "a", "code": "b"}


def add(
    place: Place, run: Run, step: int, rollouts: int, cost: float, machine: str = "one", **rewards: list[float | None]
) -> None:
    costs = {"seconds": cost, "tokens": 10 * cost}
    for domain, values in rewards.items():
        part = {"rewards": values, "rollouts": rollouts, "length": 9.0, "machine": machine, **costs}
        write_json(jobs.part_of(place, run, step, domain), part)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESAMPLES", 400)
    place = Place(tmp_path / "start", tmp_path / "work", tmp_path / "parts")
    write_json(place.start / "teachers.json", TEACHERS)
    add(place, Run("start", 0), 0, 4, 0, math=[0.0, 0.4, 0.2], code=[0.5, 0.5, 0.5])
    add(place, Run("a", 0), 0, 4, 0, math=[0.6, 1.0, 0.8], code=[0.1, 0.1, 0.1])
    add(place, Run("b", 0), 0, 4, 0, math=[0.0, 0.0, 0.0], code=[0.7, 0.7, 0.7])
    return place


def test_recovery_is_pooled_over_the_domains_that_lost_something(place):
    # Gaps 0.6 and 0.2. Seed 1 closes 0.3 and -0.1, seed 2 closes 0.5 and 0.1.
    add(place, Run("mopd", 1), STEPS, 4, 100, math=[0.3, 0.7, 0.5], code=[0.4, 0.4, 0.4])
    add(place, Run("mopd", 2), STEPS, 4, 120, math=[0.5, 0.9, 0.7], code=[0.6, 0.6, 0.6])
    row = table.summarise(place)["mopd"]
    assert row["recovery"]["value"] == pytest.approx((0.2 + 0.6) / 2 / 0.8)
    # The prompts move alike, so the interval is the seeds': 0.25 and 0.75.
    assert row["recovery"]["low"] == pytest.approx(0.25)
    assert row["recovery"]["high"] == pytest.approx(0.75)
    assert row["seconds"] == 110
    assert row["after"] == {"math": pytest.approx(0.6), "code": pytest.approx(0.5)}


def test_a_teacher_that_is_not_better_does_not_count(place):
    add(place, Run("b", 0), 0, 4, 0, code=[0.5, 0.5, 0.5])
    add(place, Run("mopd", 1), STEPS, 4, 100, math=[0.3, 0.7, 0.5], code=[0.0, 0.0, 0.0])
    summary = table.summarise(place)
    assert summary["mopd"]["recovery"]["value"] == pytest.approx(0.5)
    assert [d for d, about in summary["about"]["domains"].items() if about["counts"]] == ["math"]


def test_the_gain_over_rl_is_read_off_its_curve(place):
    add(place, Run("mopd", 1), STEPS, 4, 110, math=[0.5, 0.9, 0.7], code=[0.5, 0.5, 0.5])  # closes 0.5 of 0.8
    add(place, Run("rl", 1), STEPS, 4, 100, math=[0.1, 0.5, 0.3], code=[0.5, 0.5, 0.5])  # 0.1
    add(place, Run("rl", 1), LONGER, 4, 120, math=[0.3, 0.7, 0.5], code=[0.5, 0.5, 0.5])  # 0.3
    add(place, Run("merge", 0), 0, 4, 0, math=[0.3, 0.7, 0.5], code=[0.5, 0.5, 0.5])  # 0.3, at no cost
    variants = table.summarise(place)
    assert variants["merge"]["gain_over_rl"]["value"] == pytest.approx(0.3 / 0.8)
    assert variants["mopd"]["gain_over_rl"]["value"] == pytest.approx((0.5 - 0.2) / 0.8)
    assert variants["rl"]["recovery"]["value"] == pytest.approx(0.1 / 0.8)
    assert variants["rl"]["curve"][-1]["recovery"] == pytest.approx(0.3 / 0.8)


def test_the_gain_over_off_policy_is_paired(place):
    for seed, more in ((1, 0.0), (2, 0.2)):
        add(place, Run("off_policy", seed), -1, 4, 90, math=[0.2 + more, 0.6 + more, 0.4 + more], code=[0.5, 0.5, 0.5])
        add(place, Run("mopd", seed), STEPS, 4, 90, math=[0.3 + more, 0.7 + more, 0.5 + more], code=[0.5, 0.5, 0.5])
    summary = table.summarise(place)
    # Seeds and prompts differ, the gain does not.
    assert summary["mopd"]["recovery"]["high"] > summary["mopd"]["recovery"]["low"] + 0.1
    assert summary["mopd"]["gain_over_off_policy"] == pytest.approx(dict.fromkeys(("value", "low", "high"), 0.1 / 0.8))
    assert "gain_over_off_policy" not in summary["off_policy"]
    lines = table.as_markdown(summary).splitlines()
    assert lines[0].startswith("| variant | recovery, % | over off-policy | CPU s | tokens | math | code |")
    assert {line.count("|") for line in lines} == {8}


def test_the_machines_are_named_with_what_was_measured_on_them(place):
    add(place, Run("mopd", 1), 10, 1, 100, math=[0.3, 0.7, 0.5], code=[0.4, 0.4, 0.4])
    add(place, Run("mopd", 1), STEPS, 4, 100, "two", math=[0.3, 0.7, 0.5], code=[0.4, 0.4, 0.4])
    add(place, Run("rl_routed", 1, "math"), 8, 4, 30, "two", math=[0.6, 1.0, 0.8])
    add(place, Run("rl_routed", 1, "code"), 8, 4, 20, "three", code=[0.5, 0.5, 0.5])
    machines = table.summarise(place)["about"]["machines"]
    assert machines == {"one": ["start", "mopd"], "two": ["mopd", "rl_routed"], "three": ["rl_routed"]}


def test_runs_by_domain_are_one_result_when_all_are_there(place):
    add(place, Run("rl_routed", 1, "math"), 8, 4, 30, math=[0.6, 1.0, 0.8])
    assert "rl_routed" not in table.summarise(place)
    add(place, Run("rl_routed", 1, "code"), 8, 4, 20, code=[0.5, 0.5, 0.5])
    row = table.summarise(place)["rl_routed"]
    assert row["recovery"]["value"] == pytest.approx(0.6 / 0.8)
    assert (row["seconds"], row["tokens"]) == (50, 500)


def test_a_prompt_without_verdict_is_left_out(place):
    add(place, Run("mopd", 1), STEPS, 4, 100, math=[None, 0.7, 0.5], code=[0.5, 0.5, 0.5])
    row = table.summarise(place)["mopd"]
    assert row["after"]["math"] == pytest.approx(0.6)
    assert row["recovery"]["value"] == pytest.approx(0.4 / 0.8)


def test_what_is_missing_of_a_run(place):
    run = Run("mopd", 1)
    assert jobs.missing(place, run, STEPS) == ["math", "code"]
    add(place, run, STEPS, 4, 1, math=[0.0] * 3)
    assert jobs.missing(place, run, STEPS) == ["code"]
    assert Run("rl_routed", 1, "code").name == "rl_routed-1-code"
    assert jobs.missing(place, Run("rl_routed", 1, "code"), 8) == ["code"]


def test_a_teacher_is_evaluated_in_what_it_teaches(place):
    shutil.rmtree(place.parts / "b-0")
    assert jobs.missing(place, Run("b", 0), 0) == ["code"]
    add(place, Run("b", 0), 0, 4, 0, code=[0.9, 0.9, 0.9])
    assert jobs.missing(place, Run("b", 0), 0) == []
    assert table.summarise(place)["about"]["domains"]["code"]["teacher"] == pytest.approx(0.9)


def test_what_was_measured_of_a_variant_that_is_no_more_is_ignored(place):
    add(place, Run("mopd", 1), STEPS, 4, 100, math=[0.3, 0.7, 0.5], code=[0.5, 0.5, 0.5])
    before = table.summarise(place)
    add(place, Run("headroom", 1), STEPS, 4, 100, math=[0.3, 0.7, 0.5], code=[0.5, 0.5, 0.5])
    write_json(place.parts / "headroom-2" / "10" / "math.json", {"written": "by an earlier version"})
    write_json(place.parts / "headroom-3-math" / "last" / "math.json", {})
    assert table.summarise(place) == before


def test_every_variant_is_a_recipe(tmp_path):
    place = Place(tmp_path / "start", tmp_path / "work", tmp_path / "parts")
    write_json(place.start / "teachers.json", start.TEACHERS)
    shutil.copyfile("benchmarks/distillation/start.yaml", place.start / "params.yaml")
    for node in ("start", "sft", *set(start.TEACHERS.values())):
        write_json(place.start / "models" / node / "config.json", {})
    for run in table.runs_of(list(VARIANTS), [1], place):
        if run.variant in VARIANTS and run.variant != "start" and run.domain in ("", "math"):
            recipe = jobs._prepare(place, run, jobs.Layout(place.work / run.name))
            assert recipe.common_start(sorted(set(start.TEACHERS.values()))) == "sft"
