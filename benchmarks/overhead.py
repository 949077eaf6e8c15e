"""What orchestration costs: the wall time of the newest finished run of a project less the time of its nodes' own work.

    python -m benchmarks.overhead PROJECT

Wall time is Prefect's, of the flow run. Own work is from the journals: from a node's first entry to its last, in this
run; side by side counts once. The rest is Prefect, DVC, starting processes, hashing inputs, reporting. A lower bound:
the machine's journal goes from a node's training to the end of its evaluation, with what lies between the two.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.servers import set_environment
from cascade.tracking import Journal

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


def newest_run(layout: Layout) -> Span:
    """Raises CascadeError where the project has no completed run."""
    set_environment(layout)
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    completed = FlowRunFilter.model_validate({"state": {"type": {"any_": ["COMPLETED"]}}})
    cascade = FlowFilter.model_validate({"name": {"any_": ["cascade"]}})
    with get_client(sync_client=True) as prefect:
        found = prefect.read_flow_runs(
            flow_filter=cascade, flow_run_filter=completed, sort=FlowRunSort.END_TIME_DESC, limit=1
        )
    if not found or found[0].start_time is None or found[0].end_time is None:
        raise CascadeError(f"{layout.root}: no completed run; `cascade run` makes one")
    return found[0].start_time.timestamp(), found[0].end_time.timestamp()


def work(layout: Layout) -> dict[str, Span]:
    """Journal → when its process measured its first and its last."""
    spans = {}
    for path in sorted((layout.root / ".cascade" / "journal").glob("*.jsonl")):
        if times := [entry["time"] for entry in Journal(path).entries()]:
            spans[path.stem] = (min(times), max(times))
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    layout = Layout(parser.parse_args().project.resolve())
    run, spans = newest_run(layout), work(layout)
    for name, span in sorted(spans.items(), key=lambda item: item[1]):
        if own := covered([span], run):
            print(f"{name:32}{own:8.1f} s")
    wall, own = run[1] - run[0], covered(spans.values(), run)
    print(f"{'run':32}{wall:8.1f} s, {wall - own:.1f} s of it ({(wall - own) / wall:.0%}) not the nodes' own work")


if __name__ == "__main__":
    main()
