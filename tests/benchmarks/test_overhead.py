"""The share of a run that is not its nodes' own work."""

from pathlib import Path

import pytest

from benchmarks.overhead import covered, newest_run, work
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import PIPELINE
from cascade.tracking import journal
from cascade.tracking.journal import system_journal


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3), (5, 6)], 3),
        ([(1, 5), (2, 3), (4, 7)], 6),  # side by side counts once
        ([(-5, 2), (9, 20)], 3),  # what lies outside the run does not count
        ([(11, 12)], 0),
    ],
)
def test_covered_time_is_that_of_the_union_within_the_run(spans: list, seconds: float) -> None:
    assert covered(spans, (0, 10)) == seconds


def test_only_processes_of_the_newest_finished_run_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(CascadeError, match="no finished run"):
        newest_run(layout)

    def ended(node: str, what: str, pipeline: str, began: float, at: float) -> None:
        monkeypatch.setattr(journal.time, "time", lambda: at)
        system_journal(layout, node).process(what, pipeline, began)

    ended("sft", "sft", "first", 1, 4)
    ended(PIPELINE, "cascade run", "first", 0, 9)
    system_journal(layout, "sft").metrics({"system/disk_available_megabytes": 1.0}, 0)
    ended("sft", "sft", "second", 12, 14)
    ended("sft", "sft, evaluation", "second", 15.5, 17)
    ended(PIPELINE, "cascade run", "second", 10, 20)
    assert newest_run(layout) == ("second", (10, 20))
    assert work(layout, "second") == [("sft", (12, 14)), ("sft, evaluation", (15.5, 17))]
