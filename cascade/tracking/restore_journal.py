"""Restore the journal of a node whose checkpoint DVC took from its cache."""

from cascade.layout import Layout
from cascade.tracking import Journal, decision_journal
from cascade.tracking.curves import read_steps
from cascade.tracking.journal import tags_of
from cascade.utils.files import fingerprint, read_json


def recall(node: str, checkpoint: str, layout: Layout) -> None:
    """Rewrite the journal of `node` from its results where it is of another checkpoint than the one under models/,
    whose hash is `checkpoint`: MLflow then shows the run that trained this checkpoint.

    Does nothing for a node without journal or results, or whose journal is of this checkpoint already.
    """
    journal = Journal(layout.journal(node))
    entries = journal.entries()
    manifest_path = layout.training(node) / "manifest.json"
    if not entries or tags_of(entries).get("checkpoint_hash") == checkpoint or not manifest_path.exists():
        return
    manifest = read_json(manifest_path)
    if manifest["checkpoint"] != checkpoint:
        return
    inputs = manifest["inputs"]
    journal.rewind(0)
    journal.tags(
        {
            "parent": manifest["parent"],
            "parent_hash": inputs["parent"],
            "data_hash": inputs["data"],
            "inputs_hash": fingerprint(inputs),
        }
    )
    by_step: dict[int, dict[str, float]] = {}
    for metric, points in read_steps(layout.training(node) / "steps.csv").items():
        for step, value in points:
            by_step.setdefault(step, {})[metric] = value
    for step, values in sorted(by_step.items()):
        journal.metrics(values, step)
    for file in ("steps.csv", "manifest.json"):
        journal.artifact(layout.training(node) / file, "training")
    journal.tags({"checkpoint_hash": checkpoint})
    journal.status("finished")
    if layout.decision(node).exists():
        decision = decision_journal(layout, node)
        decision.rewind(0)
        decision.artifact(layout.decision(node), "decision")
