"""What it takes to start: `python -m benchmarks.start --before DIR`, DIR a checkout of another revision.

In turns with it: `cascade --help`; `cascade node sft` from its start to its first step, without a run's fork server;
`cascade run` where there is nothing to do. In a small project that each revision builds first, about a minute each.
Ratios are of CPU time, which work beside it changes least, medians of the turns; their geometric mean goes to
results/benchmarks/speed.json.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from statistics import median

from benchmarks import speed
from benchmarks.revisions import HERE, Cost, run, until_line

SMALL = "import sys, pathlib, tests.test_pipeline as small; small.make_project(pathlib.Path(sys.argv[1]))"
FIRST_STEP = r"\bsft +1/\d"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--before", type=Path, required=True)
    arguments.add_argument("--turns", type=int, default=5)
    options = arguments.parse_args()
    trees = [HERE, options.before.resolve()]
    with tempfile.TemporaryDirectory() as place:
        projects = [small_project(tree, Path(place) / str(n)) for n, tree in enumerate(trees)]
        sides = list(zip(trees, projects, strict=True))
        found: dict[str, list[list[Cost]]] = {}
        for _ in range(options.turns):
            for name, command in (("help", ("cascade", "--help")), ("nothing to do", ("cascade", "run"))):
                found.setdefault(name, []).append([run(tree, project, *command) for tree, project in sides])
        for _ in range(options.turns):  # last, because the node's outputs may change
            found.setdefault("first step", []).append([first_step(tree, project) for tree, project in sides])
    print(f"{speed.machine()}; medians of {options.turns} turns, CPU (wall) seconds")
    ratios = []
    for name, turns in found.items():
        now, before = ([turn[side] for turn in turns] for side in (0, 1))
        cpu, wall = (
            [median(getattr(cost, which) for cost in side) for side in (now, before)] for which in ("cpu", "wall")
        )
        ratios.append(cpu[0] / cpu[1])
        print(f"{name:>14}: {cpu[0]:.2f} ({wall[0]:.2f}), before {cpu[1]:.2f} ({wall[1]:.2f}), ratio {ratios[-1]:.2f}")
    speed.write({"start": round(prod(ratios) ** (1 / len(ratios)), 2)})


def small_project(tree: Path, folder: Path) -> Path:
    folder.mkdir()
    subprocess.run([sys.executable, "-c", SMALL, str(folder)], cwd=tree, check=True)
    for _ in range(2):
        run(tree, folder, "cascade", "run")
    return folder


def first_step(tree: Path, project: Path) -> Cost:
    shutil.rmtree(project / ".cascade" / "work", ignore_errors=True)
    return until_line(tree, project, FIRST_STEP, "cascade", "node", "sft")


if __name__ == "__main__":
    main()
