"""What orchestration costs: the wall time of the newest finished `cascade run` of a project less its nodes' own work.

    python -m benchmarks.overhead [PROJECT]

From the journals. Wall time goes from the start of the command's `main` to the result table. Own work is the time in
which at least one process of a node or an evaluation was at work, side by side counted once: each from the start of its
`main` to its end (its imports of torch and the like, model loading and hashing are work). The rest is overhead: Prefect
and its server, DVC, the start of each process's Python and its exit, what is published to MLflow between two nodes,
queues of clusters, the report. A process that was killed says nothing, so its time counts as overhead too.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import PIPELINE
from cascade.tracking import Journal
from cascade.tracking.journal import system_journal

Span = tuple[float, float]
"""Begin and end, Unix seconds."""


def covered(spans: Iterable[Span], within: Span) -> float:
    """Seconds of `within` that at least one span covers."""
    total, reached = 0.0, within[0]
    for begin, end in sorted(spans):
        begin, end = max(begin, reached), min(end, within[1])
        if end > begin:
            total += end - begin
            reached = end
    return total


def newest_run(layout: Layout) -> tuple[str, Span]:
    """Its id, and when it was. Raises CascadeError where the project has no finished run."""
    if not (found := _processes(system_journal(layout, PIPELINE))):
        raise CascadeError(f"{layout.root}: no finished run; `cascade run` makes one")
    return found[-1]["pipeline"], _span(found[-1])


def work(layout: Layout, pipeline: str) -> list[tuple[str, Span]]:
    """Each process of the nodes and evaluations of a run, the earliest first."""
    journals = sorted(layout.journal("x").parent.glob("*.system.jsonl"))
    of_nodes = [Journal(path) for path in journals if path != system_journal(layout, PIPELINE).path]
    found = [entry for journal in of_nodes for entry in _processes(journal) if entry["pipeline"] == pipeline]
    return sorted(((entry["what"], _span(entry)) for entry in found), key=lambda one: one[1])


def _processes(journal: Journal) -> list[dict[str, Any]]:
    return [entry for entry in journal.entries() if entry["kind"] == "process"]


def _span(entry: dict[str, Any]) -> Span:
    return entry["began"], entry["time"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, nargs="?", default=Path.cwd())
    layout = Layout(parser.parse_args().project.resolve())
    pipeline, run = newest_run(layout)
    found = work(layout, pipeline)
    for what, (begin, end) in found:
        print(f"{what:32}{end - begin:8.1f} s, from {begin - run[0]:.1f} s")
    wall, own = run[1] - run[0], covered((span for _, span in found), run)
    print(f"{'run ' + pipeline[:12]:32}{wall:8.1f} s, {wall - own:.1f} s of it ({(wall - own) / wall:.1%}) overhead")


if __name__ == "__main__":
    main()
