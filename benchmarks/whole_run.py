"""What the default recipe takes: `python -m benchmarks.whole_run [--before DIR] [--busy]`, on an idle machine.

Builds the whole cascade in a new project, and with `--before` in turns that of another revision's checkout, each from
its own recipe and base model: the ratios of wall and CPU time go to results/benchmarks/speed.json. With `--busy` this
revision builds it again while each core has another process that only counts; its wall time over that without goes
there too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import speed
from benchmarks.revisions import HERE, Cost, make_project, run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--before", type=Path)
    arguments.add_argument("--busy", action="store_true")
    arguments.add_argument("--turns", type=int, default=1)
    options = arguments.parse_args()
    ours, theirs, disturbed = [], [], []
    for _ in range(options.turns):
        ours.append(build(HERE, "this revision"))
        if options.before:
            theirs.append(build(options.before.resolve(), "the one before"))
        if options.busy:
            with busy_cores():
                disturbed.append(build(HERE, "this one, a busy process a core beside it"))
    figures = {}
    wall, cpu = (median(getattr(cost, which) for cost in ours) for which in ("wall", "cpu"))
    if theirs:
        figures["run_wall"] = wall / median(cost.wall for cost in theirs)
        figures["run_cpu"] = cpu / median(cost.cpu for cost in theirs)
    if disturbed:
        figures["run_beside_busy"] = median(cost.wall for cost in disturbed) / wall
    print(f"{speed.machine()}: {wall / 60:.1f} minutes, {cpu / 60:.1f} of CPU")
    if figures:
        speed.write({name: round(value, 2) for name, value in figures.items()})


def build(tree: Path, name: str) -> Cost:
    with tempfile.TemporaryDirectory() as place:
        cost = run(tree, make_project(tree, Path(place), tree / "models" / "base"), "cascade", "run")
    print(f"{name}: {cost.wall / 60:.1f} minutes, {cost.cpu / 60:.1f} of CPU", flush=True)
    return cost


@contextmanager
def busy_cores() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


if __name__ == "__main__":
    main()
