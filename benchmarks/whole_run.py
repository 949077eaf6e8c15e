"""What the default recipe takes and what it learns, on an idle machine.

    python -m benchmarks.whole_run --seeds 0 1 2 [--before DIR] [--busy]

`cascade run` of the default recipe in a new project for each seed, one after the other. With `--before`, after the
first seed that of another revision's checkout, from its own recipe and base model: the ratios of wall and CPU time go
to results/benchmarks/speed.json. With `--busy` the first seed again, while each core has another process that only
counts; its wall time over that without goes there too. Projects are kept under --work; one that is finished is not
built again, one that was interrupted is, because its time would be wrong.

Writes results/benchmarks/learning.json and .md (`benchmarks.learning`).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from benchmarks import learning, speed
from benchmarks.revisions import HERE, Cost, make_project, run
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.utils.files import read_json, write_json


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--before", type=Path)
    arguments.add_argument("--busy", action="store_true")
    arguments.add_argument("--work", type=Path, default=Path(".cascade/whole_run"))
    options = arguments.parse_args()
    work, first = options.work.resolve(), options.seeds[0]
    costs = {first: build(HERE, work / str(first), first)}
    figures = {}
    if options.before:
        before = build(options.before.resolve(), work / f"before-{first}", first)
        figures |= {"run_wall": costs[first].wall / before.wall, "run_cpu": costs[first].cpu / before.cpu}
    if options.busy:
        beside = build(HERE, work / f"busy-{first}", first, busy=True)
        figures["run_beside_busy"] = beside.wall / costs[first].wall
    if figures:
        speed.write({name: round(value, 2) for name, value in figures.items()})
    costs |= {seed: build(HERE, work / str(seed), seed) for seed in options.seeds[1:]}
    layouts = {seed: Layout(work / str(seed)) for seed in options.seeds}
    learning.write(layouts, costs, speed.machine(), HERE / "results" / "benchmarks")


def build(tree: Path, folder: Path, seed: int, busy: bool = False) -> Cost:
    taken = folder.with_suffix(".json")
    if not taken.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        project = make_project(tree, folder, tree / "models" / "base")
        recipe = project / "params.yaml"
        text, found = re.subn(r"(?m)^seed: .*$", f"seed: {seed}", recipe.read_text(encoding="utf-8"))
        assert found == 1, recipe
        recipe.write_text(text, encoding="utf-8")
        with busy_cores() if busy else nullcontext():
            cost = run(tree, project, "cascade", "run", check=False)
        # A run that its gate refuses has failed, and is none the less whole.
        if not any("passed" in read_json(decision) for decision in project.glob("results/decisions/*.json")):
            raise CascadeError(f"{project}: cascade run did not come to its gate")
        write_json(taken, asdict(cost))
    cost = Cost(**read_json(taken))
    print(f"{folder.name}: {cost.wall / 60:.1f} minutes, {cost.cpu / 60:.1f} of CPU", flush=True)
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
