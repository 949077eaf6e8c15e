"""Verdicts a second of each environment: `python -m benchmarks.verdict_speed [--before DIR] [NAME …]`.

The rows are the environment's own nano tasks; of each the demonstration is judged, and wrong answers made of it (cut
short, its digits changed, that of the next row). With `--before`, another checkout judges the same responses in turns
with this one, each in a process of its own; the ratio of their fastest turns is printed (above 1: this one is faster;
other work on the machine only slows), and how many rewards differ. A second is one of CPU time, of the process and of
the sandboxes that it started. No program is judged twice: a comment makes each another one.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
NAMES = (
    *("reasoning_gym", "math", "instruction_following", "mcqa", "tool_calling", "structured_output", "long_context"),
    *("code", "swe_agentless"),
)
"""Those whose verdict on one response needs no model and no episode."""
IN_SANDBOX = ("code", "swe_agentless")
"""Their programs' CPU time is told in ticks of 10 ms, so their turns are longer."""
LONGER = 5

ROWS = 48


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    arguments.add_argument("--before", type=Path, help="another checkout of this project")
    arguments.add_argument("--turns", type=int, default=8)
    arguments.add_argument("--seconds", type=float, default=0.3, help="how long each turn lasts")
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve(options.serve)
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {platform.machine()}; one caller, {options.turns} turns of {options.seconds} s of CPU time")
    trees = [HERE] if options.before is None else [HERE, options.before.resolve()]
    for name in options.names:
        seconds = options.seconds * (LONGER if name in IN_SANDBOX else 1)
        speeds: list[list[float]] = [[] for _ in trees]
        for _ in range(options.turns):
            # Each turn by new processes: how one's memory happens to lie makes 8 % of difference.
            judges = [Judge(tree, name) for tree in trees]
            for judge, found in zip(judges, speeds, strict=True):
                found.append(judge.ask({"seconds": seconds})["speed"])
            rewards = [judge.ask({"seconds": 0})["rewards"] for judge in judges]
            for judge in judges:
                judge.close()
        line = f"{name:>22} {max(speeds[0]):>9.1f} a second"
        if len(trees) == 2:
            differ = sum(one != other for one, other in zip(*rewards, strict=True))
            line += f", before {max(speeds[1]):>9.1f}, ratio {max(speeds[0]) / max(speeds[1]):.3f}"
            line += f"; {differ} of {len(rewards[0])} rewards differ"
        print(line, flush=True)


class Judge:
    """A process with the modules of one checkout."""

    def __init__(self, tree: Path, name: str):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            cwd=tree,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def serve(name: str) -> None:
    from cascade.environments import get

    sys.path.append(str(Path(__file__).parent))
    from cpu_time import cpu_seconds  # type: ignore[import-not-found]

    environment = get(name)
    judged = list(cases(name))
    gc.freeze()  # What is imported is not what a verdict costs, and differs between checkouts.
    numbers = count()

    def verdict(row: dict[str, Any], response: Any) -> float | None:
        if name == "code":
            # Of equal programs the environment executes one.
            response = replace(response, content=response.content.replace("\n```", f"\n# {next(numbers)}\n```"))
        return environment.verify(row, response).reward

    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        if not seconds:
            print(
                json.dumps({"rewards": [environment.verify(row, response).reward for row, response in judged]}),
                flush=True,
            )
            continue
        # Asked after every few verdicts, for that takes some time itself, the more the more threads a process has.
        clock, step = cpu_seconds if name in IN_SANDBOX else time.process_time, 8
        began, done = clock(), 0
        while done % step or clock() - began < seconds:
            verdict(*judged[done % len(judged)])
            done += 1
        print(json.dumps({"speed": done / (clock() - began)}), flush=True)


def cases(name: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Rows of every level, with the demonstration and wrong answers."""
    from cascade.chat import Response, ToolCall
    from cascade.environments import get

    rows = [row for level in (1, 2, 3) for row in islice(get(name).generate(ROWS // 3, 7, level), ROWS // 3)]
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        shown = row["demonstration"]
        calls = tuple(
            ToolCall(call["function"]["name"], call["function"]["arguments"]) for call in shown.get("tool_calls") or ()
        )
        text = shown["content"]
        yield row, Response(text, "", calls)
        if calls:
            yield row, Response(text, "", calls[:-1])
            continue
        for wrong in (
            text[:-1],
            text.translate(str.maketrans("0123456789", "1234567890")),
            other["demonstration"]["content"],
        ):
            yield row, Response(wrong)


if __name__ == "__main__":
    main()
