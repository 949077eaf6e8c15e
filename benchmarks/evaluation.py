"""What an evaluation takes: `python -m benchmarks.evaluation --before DIR`, DIR a checkout of another revision.

Each evaluates the same checkpoint, in turns, on the benchmarks of its own default recipe, which it generates first.
The ratio of CPU times, medians of the turns, goes to results/benchmarks/speed.json; how many of the prompts that both
have got the same responses is printed.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks import speed
from benchmarks.revisions import HERE, make_project, run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--before", type=Path, required=True)
    arguments.add_argument("--checkpoint", type=Path, default=HERE / "models" / "base")
    arguments.add_argument("--turns", type=int, default=3)
    options = arguments.parse_args()
    trees = [HERE, options.before.resolve()]
    with tempfile.TemporaryDirectory() as place:
        projects = [make_project(tree, Path(place) / str(n), options.checkpoint) for n, tree in enumerate(trees)]
        sides = list(zip(trees, projects, strict=True))
        for tree, project in sides:
            run(tree, project, "cascade", "node", "curate")
        turns = [
            [run(tree, project, "tasks.evaluate", "models/base", "evaluated") for tree, project in sides]
            for _ in range(options.turns)
        ]
        responses = [responses_of(project / "evaluated" / "rollouts.parquet") for project in projects]
    cpu, wall = ([median(getattr(turn[side], which) for turn in turns) for side in (0, 1)] for which in ("cpu", "wall"))
    both = responses[0].keys() & responses[1].keys()
    same = sum(responses[0][key] == responses[1][key] for key in both)
    print(f"{speed.machine()}; medians of {options.turns} turns; {len(responses[0])} responses here")
    print(f"CPU {cpu[0]:.1f} s, before {cpu[1]:.1f} s; wall {wall[0]:.1f} s, before {wall[1]:.1f} s")
    print(f"{same} of {len(both)} responses to prompts that both have are the same")
    speed.write({"evaluation": round(cpu[0] / cpu[1], 2)})


def responses_of(path: Path) -> dict[tuple[str, str, int], str]:
    rows = pq.read_table(path, columns=["domain", "prompt", "rollout", "response"]).to_pylist()
    return {(row["domain"], row["prompt"], row["rollout"]): row["response"] for row in rows}


if __name__ == "__main__":
    main()
