"""A checkpoint that DVC took from its cache: the journal tells of what lies there."""

from pathlib import Path

from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.tracking.journal import tags_of
from cascade.tracking.restore_journal import recall
from cascade.utils.files import fingerprint, write_atomic, write_json

INPUTS = {"parent": "hash of sft", "data": "hash of data"}


def made(layout: Layout, checkpoint: str) -> Journal:
    """A journal of a node that made `checkpoint`, in two steps; results that made another one, in three."""
    journal = Journal(layout.journal("rl"))
    journal.tags({"inputs_hash": "of the later run"})
    for step in range(2):
        journal.metrics({"train/loss": 9.0}, step)
    journal.tags({"checkpoint_hash": checkpoint})
    folder = layout.training("rl")
    write_json(folder / "manifest.json", {"node": "rl", "parent": "sft", "inputs": INPUTS, "checkpoint": "earlier"})
    write_atomic(folder / "steps.csv", "step,rollout/reward,train/loss\n0,0.5,1.0\n1,,0.5\n2,0.75,0.25\n")
    return journal


def test_a_journal_of_another_checkpoint_is_written_anew_from_the_results(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    journal = made(layout, "later")
    recall("rl", "earlier", layout)
    entries = journal.entries()
    tags = tags_of(entries)
    assert (tags["checkpoint_hash"], tags["inputs_hash"], tags["parent"]) == ("earlier", fingerprint(INPUTS), "sft")
    assert [(e["step"], e["values"]) for e in entries if e["kind"] == "metrics"] == [
        (0, {"rollout/reward": 0.5, "train/loss": 1.0}),
        (1, {"train/loss": 0.5}),
        (2, {"rollout/reward": 0.75, "train/loss": 0.25}),
    ]


def test_a_journal_of_what_lies_there_is_left_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    before = made(layout, "earlier").path.read_bytes()
    recall("rl", "earlier", layout)
    assert layout.journal("rl").read_bytes() == before


def test_results_of_yet_another_checkpoint_tell_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    before = made(layout, "later").path.read_bytes()
    recall("rl", "a third", layout)
    assert layout.journal("rl").read_bytes() == before
