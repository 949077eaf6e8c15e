"""The flow's own judgement: what failed by itself is said once, and a gate that did not pass fails the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.states import Completed, Failed, Pending
from prefect.task_engine import SyncTaskRunEngine

from cascade.decisions.outcomes import gate_failures
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import load
from cascade.utils.files import write_json
from flows import cascade as flow
from tasks import nodes

ROOT = Path(__file__).parents[2]
RECIPE = load(ROOT / "recipes" / "nano-mopd.yaml")


def decide(layout: Layout, passed: bool) -> None:
    write_json(layout.decision("release"), {"passed": passed, "words": "mopd falls below sft in math", "domains": {}})


@pytest.fixture
def conclude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(flow, "show_results", lambda recipe, layout: None)
    return lambda *states: flow._conclude(RECIPE, Layout(tmp_path), [SimpleNamespace(state=s) for s in states])


def test_a_gate_that_did_not_pass_is_said(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert gate_failures(RECIPE, layout) == []
    decide(layout, passed=True)
    assert gate_failures(RECIPE, layout) == []
    decide(layout, passed=False)
    assert gate_failures(RECIPE, layout) == ["gate release: mopd falls below sft in math"]


def test_the_state_names_what_failed_not_what_waited(conclude: Any) -> None:
    state = conclude(Completed(), Failed(message="rl@if_rl: killed"), Pending(name="NotReady"))
    assert state.is_failed()
    assert state.message == "rl@if_rl: killed"


def test_pages_that_cannot_be_written_hide_nothing(conclude: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(recipe: Any, layout: Layout) -> None:
        raise CascadeError("report: cannot be written")

    monkeypatch.setattr(flow, "show_results", full)
    assert conclude(Failed(message="rl@if_rl: killed")).message == "rl@if_rl: killed; report: cannot be written"
    assert conclude(Completed()).is_failed()


def test_a_failed_gate_is_the_state_of_the_run(conclude: Any, tmp_path: Path) -> None:
    decide(Layout(tmp_path), passed=False)
    state = conclude(Completed())
    assert (state.name, state.is_failed()) == ("Gate failed", True)
    decide(Layout(tmp_path), passed=True)
    assert conclude(Completed()).is_completed()


@pytest.mark.parametrize(("name", "retried"), [(nodes.INTERRUPTED, True), ("Failed", False)])
def test_only_interrupted_stages_are_run_again(name: str, retried: bool) -> None:
    returned = Failed(message="sft@sft: killed", name=name)
    assert nodes._was_interrupted(None, None, Failed(data=returned)) is retried  # Prefect 3.7
    assert nodes._was_interrupted(None, None, returned) is retried  # Prefect 3.9
    assert nodes._was_interrupted(None, None, Failed(data=ValueError())) is False
    # Whatever the version that is installed makes of it.
    engine = SyncTaskRunEngine(task=nodes.build)
    engine.task_run = cast(Any, object())
    assert engine.can_retry(returned) is retried
    assert engine.can_retry(ValueError()) is False


def test_slots_leave_each_stage_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.os, "sched_getaffinity", lambda pid: set(range(8)))
    for threads, slots in ((2, 4), (3, 2), (16, 1)):
        nodes.set_slots(threads)
        assert nodes._slots._value == slots
