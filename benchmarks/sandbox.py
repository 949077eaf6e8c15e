"""What executions cost: `python -m benchmarks.sandbox [--before DIR]`. Trivial programs, so the price of the sandbox.

`programs` starts a trivial Python program in the sandbox; `bare` starts the same without it; `/bin/true` leaves Python
out; `verdicts` judges a correct function on six tests, as the code environment does. Costs are CPU time, of the caller
and of all processes that it started, so work beside it hardly disturbs them; a second and core is one of that.

With `--before`, a checkout of another revision does the same in turns with this one, each in a process of its own. The
ratios of programs and verdicts, medians over the turns, go to results/benchmarks/speed.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
SOURCE = "print(sum(range(10)))"
NAMES = ("programs", "bare", "/bin/true", "verdicts")
CALLS = 40
"""Of each kind in a turn: CPU time of other processes is told in ticks of 10 ms."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--before", type=Path, help="another checkout of this project")
    arguments.add_argument("--turns", type=int, default=7)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve()
        return
    trees = [HERE] if options.before is None else [HERE, options.before.resolve()]
    processes = [start(tree) for tree in trees]
    costs: list[dict[str, list[float]]] = [{name: [] for name in NAMES} for _ in trees]
    for _ in range(options.turns):
        for process, found in zip(processes, costs, strict=True):
            for name in NAMES:
                found[name].append(ask(process, name))
    for process in processes:
        process.communicate()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {platform.machine()}, Linux {platform.release()}; medians of {options.turns} turns")
    print(f"{'':>10} {'ms of CPU':>10} {'a second and core':>18}" + ("  before    ratio" if options.before else ""))
    for name in NAMES:
        here = median(costs[0][name])
        line = f"{name:>10} {1000 * here:>10.2f} {1 / here:>18.1f}"
        if options.before:
            before = median(costs[1][name])
            line += f"  {1 / before:>6.1f}   {before / here:>6.2f}"
        print(line)
    if options.before:
        from benchmarks import speed

        medians = [{name: median(found[name]) for name in ("programs", "verdicts")} for found in costs]
        speed.write({f"sandbox_{name}": round(medians[1][name] / medians[0][name], 2) for name in medians[0]})


def start(tree: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        cwd=tree,
        text=True,
    )


def ask(process: subprocess.Popen, name: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def serve() -> None:
    from cpu_time import cpu_seconds  # type: ignore[import-not-found] # this file's own folder

    from cascade import environments
    from cascade.chat import Response
    from cascade.sandbox import PYTHON, execute, require

    require()
    environment = environments.get("code")
    row = next(environment.generate(1, 0, 1))
    program = row["demonstration"]["content"]
    numbers = count()

    def judge() -> None:
        # Of equal programs the environment executes one.
        verdict = environment.verify(row, Response(program.replace("\n```", f"  # {next(numbers)}\n```")))
        assert verdict.reward == 1.0, verdict

    actions: dict[str, Callable[[], object]] = {
        "programs": lambda: execute([*PYTHON, "-c", SOURCE], {}),
        "bare": lambda: subprocess.run([*PYTHON, "-c", SOURCE], capture_output=True, check=True),
        "/bin/true": lambda: execute(["/bin/true"], {}),
        "verdicts": judge,
    }
    for line in sys.stdin:
        action = actions[line.strip()]
        action()
        began = cpu_seconds()
        for _ in range(CALLS):
            action()
        print(json.dumps((cpu_seconds() - began) / CALLS), flush=True)


if __name__ == "__main__":
    main()
