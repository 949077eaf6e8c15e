"""The share of a code-RL step spent waiting for verification: `python -m benchmarks.verification`.

Runs an RL node of the active recipe's size from models/base on one environment's own tasks, and prints medians of its
steps: sampling, waiting for verdicts with nothing left to sample, training, the whole step; and the waiting share.
Rollouts are judged beside sampling, so what is waited for is only what the last of them need. `--environment
swe_agentic` does the same for episodes, whose tests run between the turns: that is part of their sampling.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cascade import environments
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.training.on_policy import run_on_policy

NODE = "code_rl"
COLUMNS = {
    "sampling": "time/sampling_seconds",
    "waiting": "time/verification_wait_seconds",
    "training": "time/training_seconds",
    "step": "time/step_seconds",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--environment", default="code", choices=environments.names())
    arguments.add_argument("--level", type=int, default=1)
    arguments.add_argument("--prompts", type=int, default=16)
    arguments.add_argument("--rollouts", type=int, default=8)
    arguments.add_argument("--steps", type=int, default=8, help="the first two are not counted")
    arguments.add_argument("--tokens", type=int, default=160, help="at most, a response")
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        steps = run(Layout(Path(scratch)), options)
    print(
        f"{options.environment} level {options.level}: {options.prompts} prompts x {options.rollouts} rollouts, ",
        end="",
    )
    print(f"{options.threads} threads, medians of {len(steps)} steps, seconds")
    medians = {name: statistics.median(step[column] for step in steps) for name, column in COLUMNS.items()}
    print("  ".join(f"{name} {seconds:.2f}" for name, seconds in medians.items()))
    waiting, whole = (sum(step[COLUMNS[name]] for step in steps) for name in ("waiting", "step"))
    print(f"the share of a {options.environment}-RL step spent waiting for verification: {waiting / whole:.1%}")


def run(layout: Layout, options: argparse.Namespace) -> list[dict[str, float]]:
    """Metrics of the counted steps of a node of its own project."""
    shutil.copytree("models/base", layout.root / "models/base")
    rows = environments.get(options.environment).generate(options.prompts * options.steps, 0, options.level)
    prompts = [{"id": row["id"], "environment": options.environment, "row": json.dumps(row)} for row in rows]
    path = layout.prompts(options.environment)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(prompts), path)
    rollout = {"max_new_tokens": options.tokens, "max_turns": 12, "max_context": 1536}
    node = {
        "init": "base",
        "round": 1,
        "mix": {options.environment: 1.0},
        "steps": options.steps,
        "prompts": options.prompts,
        "rollouts": options.rollouts,
        "max_refills": 0,
        "rollout": rollout,
        "optimizer": {"learning_rate": 1.0e-5},
    }
    source = {"generator": options.environment, "domain": options.environment, "rl": len(prompts)}
    recipe = Recipe.model_validate(
        {
            "name": "verification",
            "family": "verification",
            "threads": options.threads,
            "curation": {"sources": {"tasks": source}, "max_tokens": 2048, "sequence_length": 2048},
            **{kind: {} for kind in ("sft", "teachers", "distill", "repair", "gate")},
            "rl": {NODE: node},
            "evaluation": {"rollouts": 1, "rollout": rollout},
        }
    )
    run_on_policy(recipe, NODE, layout)
    with open(layout.training(NODE) / "steps.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    # A step with nothing to learn from has no training.
    return [{name: float(line[name] or 0) for name in COLUMNS.values()} for line in lines[2:]]


if __name__ == "__main__":
    main()
