"""The one-GPU recipe from nothing: its base model, then every node and evaluation, with times and learning curves.

    python -m benchmarks.gpu.path --work .cascade/one-gpu --out results/gpu

What is there already is not made again, so an interrupted run goes on. After each step --out holds what is known so
far: path.json (seconds of each step, the base model's loss, scores by node and domain, reward curves) and curves.png.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from cascade.layout import Layout
from cascade.pretraining.pretrain import pretrain
from cascade.recipe import Node, Recipe, load
from cascade.report import figures
from cascade.report.results import load_results
from cascade.utils.files import read_json, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/one-gpu.yaml"))
    parser.add_argument("--base", type=Path, default=Path("recipes/base/one-gpu.yaml"))
    parser.add_argument("--work", type=Path, default=Path(".cascade/one-gpu"))
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that write the base's corpus")
    arguments = parser.parse_args()
    layout = Layout(arguments.work.resolve())
    layout.root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(arguments.recipe, layout.params)
    recipe = load(layout.params)
    base = layout.root / recipe.base
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds: dict[str, float] = {}
    if not base.exists():
        began = time.perf_counter()
        # In a process of its own: what it holds of the card is the nodes' afterwards.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
            own.submit(pretrain, arguments.base, base, device=device, processes=arguments.processes).result()
        seconds["pretrain"] = time.perf_counter() - began
        write(layout, recipe, seconds, arguments.out)
    # An evaluation runs beside the next node; a decision waits for those before it.
    with ThreadPoolExecutor(1) as aside:
        waiting: list[Future[None]] = []
        for command, made in steps(layout, recipe):
            if made.exists():
                continue
            if command[0] == "evaluate":
                waiting.append(aside.submit(run, layout, command, seconds))
                continue
            if command[1] in recipe.teachers or command[1] in recipe.gate:
                for future in waiting:
                    future.result()
                write(layout, recipe, seconds, arguments.out)
            run(layout, command, seconds)
            write(layout, recipe, seconds, arguments.out)
        for future in waiting:
            future.result()
    write(layout, recipe, seconds, arguments.out)


def steps(layout: Layout, recipe: Recipe) -> list[tuple[tuple[str, str], Path]]:
    """The commands of the engine, in order, with what each makes."""
    found = [(("node", "curate"), layout.root / "data" / "report.json")]
    for name, node in recipe.ordered().items():
        if not isinstance(node, Node):
            found.append((("node", name), layout.decision(name)))
            continue
        found.append((("node", name), layout.checkpoint(name)))
        found.append((("evaluate", name), layout.evaluation(name) / "summary.json"))
    return found


def run(layout: Layout, command: tuple[str, str], seconds: dict[str, float]) -> None:
    print(f"== cascade {' '.join(command)}", flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cascade", *command], cwd=layout.root, env=environment, check=True)
    seconds[" ".join(command)] = time.perf_counter() - began


def write(layout: Layout, recipe: Recipe, seconds: dict[str, float], out: Path) -> None:
    known: dict[str, Any] = read_json(out / "path.json") if (out / "path.json").exists() else {"seconds": {}}
    facts = read_json(layout.root / recipe.base / "pretraining.json")
    results = load_results(recipe, layout)
    write_json(
        out / "path.json",
        {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
            "seconds": known["seconds"] | {step: round(value, 1) for step, value in seconds.items()},
            "base": facts,
            "scores": {
                node: {d: results.score(node, d) for d in recipe.domains} | {"mean": results.mean(node)}
                for node in results.summaries
            },
            "manifests": {node: {k: m[k] for k in ("seconds", "tokens")} for node, m in results.manifests.items()},
            "recovery": {
                node: [vars(found) | {"rate": found.rate} for found in results.recoveries(node)]
                for node in recipe.distill
            },
            "curves": results.steps,
        },
    )
    if results.steps:
        figures.to_png(figures.all_stages(results), out / "curves.png")


if __name__ == "__main__":
    main()
