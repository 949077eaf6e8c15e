"""The share of a run that is not its nodes' own work."""

from pathlib import Path

import pytest

from benchmarks.overhead import covered, work
from cascade.files import write_atomic
from cascade.layout import Layout


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


def test_a_nodes_work_lasts_from_its_first_entry_to_its_last(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    lines = [f'{{"kind": "metrics", "time": {time}, "step": 0, "values": {{}}}}\n' for time in (7.5, 9.0, 12.25)]
    write_atomic(layout.journal("sft"), "".join(lines))
    write_atomic(layout.journal("never"), "")
    assert work(layout) == {"sft": (7.5, 12.25)}
