"""Every step of a recipe, several side by side, within a time limit: what is there is not made again, a node that was
stopped resumes.

All state is under the work directory: data, checkpoints, resumable states, results, and seconds.json, the seconds that
each step took over all calls.
"""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cascade.layout import Layout
from cascade.recipe import BASE, Node, Recipe, load
from cascade.report.results import load_results, pooled_recovery
from cascade.tracking.curves import Series
from cascade.utils.files import read_json, write_json

ENDING = 20.0
"""Seconds at the end of the limit in which nothing new is started."""
PATIENCE = 30.0
"""Seconds that a stopped step has to end by itself."""


@dataclass(frozen=True)
class Step:
    name: str
    command: tuple[str, ...]
    """Arguments of Python, in the work directory."""
    makes: Path
    needs: tuple[Path, ...]

    @property
    def done(self) -> bool:
        return self.makes.exists()

    @property
    def ready(self) -> bool:
        return not self.done and all(path.exists() for path in self.needs)


def steps(recipe: Recipe, layout: Layout, gguf: Path | None, template: str) -> list[Step]:
    """In the order in which they are started: nodes first, evaluations where there is room.

    `gguf`: the file that the base is imported from; None where the base is there already.
    """
    base = layout.root / recipe.base
    data = layout.root / "data" / "report.json"
    found = []
    if gguf is not None:
        arguments = ("import", str(gguf), "--chat-template", template, "--out", str(base))
        found.append(Step("import", ("-m", "cascade", *arguments), base / "config.json", (gguf,)))
    found.append(Step("curate", ("-m", "cascade", "node", "curate"), data, (base / "config.json",)))
    evaluations = [_evaluation(BASE, layout, (base / "config.json", data))]
    for name, node in recipe.ordered().items():
        parents = [layout.checkpoint(n) if n in recipe.training else layout.decision(n) for n in recipe.parents(name)]
        awaited = [_summary(n, layout) for n in recipe.awaited(name)]
        training = isinstance(node, Node)
        makes = layout.checkpoint(name) if training else layout.decision(name)
        if not training:
            # Teachers and gates compare evaluations.
            awaited += [_summary(n, layout) for n in recipe.parents(name) if n in recipe.training]
        needs = (base / "config.json", data, *parents, *awaited)
        found.append(Step(name, ("-m", "cascade", "node", name), makes, needs))
        if training:
            evaluations.append(_evaluation(name, layout, (layout.checkpoint(name), data)))
    return found + evaluations


def _evaluation(node: str, layout: Layout, needs: tuple[Path, ...]) -> Step:
    return Step(f"evaluate {node}", ("-m", "cascade", "evaluate", node), _summary(node, layout), needs)


def _summary(node: str, layout: Layout) -> Path:
    return layout.evaluation(node) / "summary.json"


def run(todo: list[Step], layout: Layout, jobs: int, deadline: float, progress: Callable[[], None]) -> list[Step]:
    """Run steps, `jobs` side by side, until all are done or `deadline` (of `time.monotonic`) is reached; steps then
    running are stopped. Calls `progress` after each step. Returns what is left."""
    running: dict[Step, tuple[subprocess.Popen, float]] = {}
    failed: set[Step] = set()
    logs = layout.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while True:
            for step in todo:
                room = len(running) < jobs and time.monotonic() < deadline - ENDING
                if room and step.ready and step not in running and step not in failed:
                    print(f"{_clock(deadline)}  {step.name}", flush=True)
                    running[step] = (_start(step, layout, logs), time.monotonic())
            if not running or time.monotonic() >= deadline:
                break
            time.sleep(0.2)
            for step, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[step]
                _count(layout, step, time.monotonic() - began)
                if process.returncode or not step.done:
                    failed.add(step)
                    print(f"{_clock(deadline)}  {step.name} FAILED\n{_tail(logs, step)}", flush=True)
                else:
                    print(f"{_clock(deadline)}  {step.name} done", flush=True)
                progress()
    finally:
        for process, _ in running.values():
            process.terminate()
        for step, (process, began) in running.items():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _count(layout, step, time.monotonic() - began)
            print(f"{_clock(deadline)}  {step.name} stopped: {_tail(logs, step, 1).strip()}", flush=True)
        progress()
    return [step for step in todo if not step.done]


def _start(step: Step, layout: Layout, logs: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    with open(_log(logs, step), "ab") as log:
        return subprocess.Popen(
            [sys.executable, *step.command], cwd=layout.root, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def _log(logs: Path, step: Step) -> Path:
    return logs / f"{step.name.replace(' ', '-')}.log"


def _tail(logs: Path, step: Step, lines: int = 15) -> str:
    return "\n".join(_log(logs, step).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _clock(deadline: float) -> str:
    return f"[{deadline - time.monotonic():4.0f} s left]"


def _count(layout: Layout, step: Step, seconds: float) -> None:
    known = seconds_of(layout)
    write_json(layout.root / "seconds.json", known | {step.name: round(known.get(step.name, 0.0) + seconds, 1)})


def seconds_of(layout: Layout) -> dict[str, float]:
    path = layout.root / "seconds.json"
    return read_json(path) if path.exists() else {}


def table(recipe: Recipe, layout: Layout, facts: dict[str, Any], left: Iterable[str]) -> dict[str, Any]:
    """What is known so far: nodes × domains with 95 % intervals, seconds, tokens, rewards, teachers, recovery, gate."""
    results = load_results(recipe, layout)
    curated = layout.root / "data" / "report.json"
    scores: dict[str, Any] = {}
    for node, summary in results.summaries.items():
        scores[node] = {
            domain: {
                "score": round(values["avg@k"], 4),
                "interval": [round(values["ci_low"], 4), round(values["ci_high"], 4)],
                "prompts": values["prompts"],
                "truncated": round(values["truncated"], 4),
                "tokens": round(values["length"], 1),
            }
            for domain, values in summary["domains"].items()
        }
        scores[node]["mean"] = round(results.mean(node), 4)
    recoveries = {node: results.recoveries(node) for node in (*recipe.distill, *recipe.repair)}
    pooled = {node: pooled_recovery(found) for node, found in recoveries.items() if found}
    decisions = results.decisions
    return {
        **facts,
        "recipe": recipe.name,
        "left": list(left),
        "scores": scores,
        "pooled_recovery": next(iter(pooled.values()), None),
        "recovery": {
            node: [vars(one) | {"rate": one.rate} for one in found] for node, found in recoveries.items() if found
        },
        "teachers": {
            name: {d: t["node"] for d, t in decisions[name]["teachers"].items()}
            for name in recipe.teachers
            if name in decisions
        },
        "gate": {n: {k: decisions[n][k] for k in ("passed", "words")} for n in recipe.gate if n in decisions},
        "seconds": seconds_of(layout),
        "tokens": {node: manifest.get("tokens") for node, manifest in results.manifests.items()},
        "training": {node: _training(series) for node, series in results.steps.items()},
        "curation": read_json(curated) if curated.exists() else None,
    }


def _training(series: Series) -> dict[str, Any]:
    """Means over a tenth of the steps, at the beginning and at the end, of what tells how training went."""
    wanted = ("rollout/reward", "rollout/length", "train/reverse_kl", "train/loss", "train/log_prob_gap")
    found: dict[str, Any] = {}
    for name in (*wanted, "time/step_seconds", "speed/sampling_tokens_per_second", "rollout/skipped_step"):
        values = [value for _, value in series.get(name, [])]
        if not values:
            continue
        tenth = max(1, len(values) // 10)
        if name == "rollout/skipped_step":
            found["skipped_steps"] = sum(values)
        elif name in wanted:
            found[name] = [round(sum(part) / tenth, 4) for part in (values[:tenth], values[-tenth:])]
        else:
            found[name] = round(sorted(values)[len(values) // 2], 3)
        found["steps"] = max(found.get("steps", 0), len(values))
    return found


def keep(layout: Layout, archive: Path) -> None:
    """The small files behind the table: scores by prompt, curves, decisions, samples, logs."""
    names = ("summary.json", "prompts.csv", "steps.csv", "samples.jsonl", "manifest.json", "metrics.json")
    temporary = archive.with_name(f".{archive.name}")
    with tarfile.open(temporary, "w:gz") as packed:
        for path in sorted((layout.root / "results").rglob("*")):
            if path.is_file() and (path.name in names or path.parent.name == "decisions"):
                packed.add(path, path.relative_to(layout.root))
        for path in sorted((layout.root / "logs").glob("*.log")):
            packed.add(path, path.relative_to(layout.root))
    temporary.replace(archive)


def open_project(recipe: Path, work: Path, without: Iterable[str] = ()) -> tuple[Recipe, Layout]:
    """The work directory with this recipe as its active one, without some of its domains."""
    content = recipe.read_text(encoding="utf-8")
    if left_out := set(without):
        content = yaml.safe_dump(_reduced(yaml.safe_load(content), left_out), sort_keys=False)
    layout = Layout(work.resolve())
    layout.root.mkdir(parents=True, exist_ok=True)
    if not layout.params.exists() or layout.params.read_text(encoding="utf-8") != content:
        layout.params.write_text(content, encoding="utf-8")
    return load(layout.params), layout


def _reduced(content: dict[str, Any], without: set[str]) -> dict[str, Any]:
    """A recipe without the sources and RL nodes of some domains."""
    sources = content["curation"]["sources"]
    content["curation"]["sources"] = {name: s for name, s in sources.items() if s["domain"] not in without}
    content["rl"] = {name: node for name, node in content["rl"].items() if not without & set(node["mix"])}
    for node in content["teachers"].values():
        node["candidates"] = [name for name in node["candidates"] if name in {**content["sft"], **content["rl"]}]
    return content
