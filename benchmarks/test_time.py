"""Test-time scaling against plain sampling at the same budget, on the two domains of recipes/nano-test-time.yaml.

    python -m benchmarks.test_time --seeds 0 1 2 --jobs 2

For each seed a project of its own under --work: curation, fine-tuning of the base model, and every solve node, each
a process of one thread, on the CPU unless --gpu is given. Killed or ended by --limit-seconds, it goes on when it is
called again; 0 seconds make the data alone, for a machine that cannot. Nothing is downloaded, and neither MLflow,
Prefect nor DVC is needed.

Writes results/benchmarks/test_time.json: for each domain the strategy's score, that of the choice from plain samples
that it is compared with, and their difference with a 95 % interval, over the problems of all seeds; the other choices;
scores by round and by budget; how often the verifier was right; the share of the time in which neither a response was
sampled nor a program run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import BASE, load
from cascade.test_time.scores import difference, with_interval
from cascade.utils.files import read_json, read_jsonl, write_atomic, write_json
from cascade.utils.machine import machine

RECIPE = Path("recipes") / "nano-test-time.yaml"

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of the processes."""


def prepare(project: Path, recipe: Path, target: Path, seed: int, problems: int | None) -> Layout:
    """A project for one seed; with as many problems in each benchmark, where they are given."""
    layout = Layout(target)
    shutil.copytree(project / "models" / "base", target / "models" / "base", dirs_exist_ok=True)
    content = yaml.safe_load(recipe.read_text(encoding="utf-8")) | {"seed": seed, "threads": 1}
    for source in content["curation"]["sources"].values():
        if problems is not None and source.get("benchmark"):
            source["benchmark"] = problems
    write_atomic(layout.params, yaml.safe_dump(content, sort_keys=False))
    return layout


class TimeUp(Exception):
    """The benchmark's time is spent."""


def curate(layout: Layout, seed: int) -> None:
    if not (layout.root / "data" / "report.json").exists():
        _cascade(layout, seed, "curate", float("inf"))


def train(layout: Layout, seed: int, deadline: float) -> None:
    """Every checkpoint that a solve node uses, with what it starts from, unless it is there. Raises TimeUp."""
    recipe = load(layout.params)
    for name in dict.fromkeys(name for node in recipe.solve.values() for name in node.checkpoints):
        missing = []
        while name != BASE and not layout.checkpoint(name).exists():
            missing.append(name)
            name = recipe.training[name].init
        for each in reversed(missing):
            _cascade(layout, seed, each, deadline)


def search(layout: Layout, seed: int, name: str, deadline: float) -> None:
    """Raises TimeUp."""
    if not (layout.solution(name) / "summary.json").exists():
        _cascade(layout, seed, name, deadline)


def _cascade(layout: Layout, seed: int, node: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeUp
    print(f"seed {seed}: {node}", flush=True)
    began = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "cascade", "node", node],
        cwd=layout.root,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=deadline - began if deadline < float("inf") else None)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        last = said.strip().replace("\r", "\n").splitlines()[-1:]
        print(f"seed {seed}: {node}: the time is up: {' '.join(last)}", flush=True)
        raise TimeUp from None
    if process.returncode != 0:
        raise CascadeError(f"seed {seed}: {node} failed: {said.strip().splitlines()[-1]}")
    print(f"seed {seed}: {node} took {time.monotonic() - began:.0f} s", flush=True)


def together(layouts: Sequence[Layout], seeds: Sequence[int], name: str) -> dict[str, Any]:
    """A solve node over all seeds, each with problems of its own: the problem is the unit of intervals and tests."""
    summaries = [read_json(layout.solution(name) / "summary.json") for layout in layouts]
    answers = {
        f"{seed} {row['id']}": row
        for seed, layout in zip(seeds, layouts, strict=True)
        for row in read_jsonl(layout.solution(name) / "answers.jsonl")
    }
    strategy = {key: float(row["score"]) for key, row in answers.items()}
    methods = list(summaries[0]["plain"])
    plain = {method: {key: float(row["plain"][method]) for key, row in answers.items()} for method in methods}
    found: dict[str, Any] = {
        "strategy": {"name": summaries[0]["strategy"], **_rounded(with_interval(strategy))},
        "plain": {"name": methods[0], **_rounded(with_interval(plain[methods[0]]))},
        "difference": _rounded(difference(strategy, plain[methods[0]], "benchmark", name)),
        "budget": {
            "responses": summaries[0]["budget"],
            "submissions": read_json(layouts[0].solution(name) / "manifest.json")["section"]["budget"]["submissions"],
        },
        "problems": len(answers),
        "others": {
            method: {
                **_rounded(with_interval(plain[method])),
                "difference": _rounded(difference(strategy, plain[method], "benchmark", name, method)),
            }
            for method in methods[1:]
        },
        "by_seed": {
            str(seed): {
                "strategy": summary["score"],
                **{method: summary["plain"][method]["score"] for method in methods},
            }
            for seed, summary in zip(seeds, summaries, strict=True)
        },
        "rounds": _rounds([summary["rounds"] for summary in summaries]),
        "curve": _curve([summary["curve"] for summary in summaries]),
        "orchestration": round(fmean(summary["seconds"]["orchestration"] for summary in summaries), 4),
    }
    if "verifier" in summaries[0]:
        found["verifier"] = [summary["verifier"] for summary in summaries]
        found["graded"] = [summary["graded"] for summary in summaries]
    return found


def _rounds(of_seeds: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """Means over seeds; a search that ended earlier keeps its score."""
    last = max(len(rounds) for rounds in of_seeds)
    return [
        {
            "round": number + 1,
            **{
                key: round(fmean(rounds[min(number, len(rounds) - 1)][key] for rounds in of_seeds), 4)
                for key in ("score", "generations", "right")
                if key in of_seeds[0][0]
            },
        }
        for number in range(last)
    ]


def _curve(of_seeds: list[list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Method → budget → mean over the seeds that have both."""
    values: dict[str, dict[str, list[float]]] = {}
    for point in (point for points in of_seeds for point in points):
        values.setdefault(point["method"], {}).setdefault(str(point["budget"]), []).append(point["score"])
    return {
        method: {budget: round(fmean(scores), 4) for budget, scores in sorted(found.items(), key=lambda p: int(p[0]))}
        for method, found in values.items()
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}


def in_words(domain: str, found: dict[str, Any]) -> str:
    d = found["difference"]
    return (
        f"{domain}: {found['strategy']['name']} {100 * found['strategy']['score']:.1f} %, {found['plain']['name']} "
        f"{100 * found['plain']['score']:.1f} % at {found['budget']['responses']} responses a problem: "
        f"{100 * d['difference']:+.1f} [{100 * d['ci_low']:+.1f}, {100 * d['ci_high']:+.1f}], p {d['p_value']:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, of one thread each")
    parser.add_argument("--problems", type=int, help="problems of each benchmark; default: the recipe's")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--work", type=Path, default=Path(".cascade") / "test_time")
    parser.add_argument("--out", type=Path, default=Path("results") / "benchmarks" / "test_time.json")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    parser.add_argument("--gpu", action="store_true", help="train and sample on the GPU, which all processes share")
    arguments = parser.parse_args()
    os.environ.update(ONE_THREAD if arguments.gpu else ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""})
    deadline = time.monotonic() + arguments.limit_seconds
    work = arguments.work.resolve()
    layouts = [
        prepare(Path.cwd(), arguments.recipe, work / f"seed-{seed}", seed, arguments.problems)
        for seed in arguments.seeds
    ]
    nodes = load(layouts[0].params).solve
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pairs = list(zip(layouts, arguments.seeds, strict=True))
        list(pool.map(curate, *zip(*pairs, strict=True)))
        jobs: dict[Future[None], tuple[Layout, int] | None] = {
            pool.submit(train, *pair, deadline): pair for pair in pairs
        }
        left = 0
        while jobs:
            for future in wait(jobs, return_when=FIRST_COMPLETED).done:
                trained = jobs.pop(future)
                try:
                    future.result()
                except TimeUp:
                    left += 1
                    continue
                if trained:
                    jobs |= {pool.submit(search, *trained, name, deadline): None for name in nodes}
    if left:
        print("not finished: call it again")
        return
    found = {node.benchmark: together(layouts, arguments.seeds, name) for name, node in nodes.items()}
    recipe = load(layouts[0].params).name
    about = {"machine": machine(), "gpu": torch.cuda.get_device_name() if arguments.gpu else None}
    write_json(arguments.out, {"recipe": recipe, "seeds": arguments.seeds, **about, **found})
    for domain, values in found.items():
        print(in_words(domain, values))


if __name__ == "__main__":
    main()
