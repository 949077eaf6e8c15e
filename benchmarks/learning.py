"""Does it learn? The whole recipe under several seeds, and distillation against RL at equal steps.

    python -m benchmarks.learning --seeds 0 1 2

Seeds run two at a time, on one thread each. Each is a project of its own under --work (kept, so that an interrupted
benchmark goes on): curation, every node and every evaluation of the active recipe, in order, with larger benchmarks
than the recipe's, for narrower intervals. Beside the recipe's distillation node an RL node starts from the same
checkpoint, with the same prompts, steps, rollouts and optimizer. Writes results/benchmarks/learning.json and .md
(node × domain, means over seeds with standard errors, and what is claimed of them) and
results/benchmarks/distillation_versus_rl.json and .png, the curve that the report draws.
"""

import argparse
import copy
import csv
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from cascade.errors import CascadeError
from cascade.evaluation.statistics import recovery_rate
from cascade.layout import Layout
from cascade.recipe import Node, Recipe, load
from cascade.report import figures
from cascade.report.results import load_results, pooled_recovery
from cascade.utils.files import read_json, write_atomic, write_json

RIVAL = "rl_instead"
"""The RL node that starts where the distillation starts."""
WINDOW = 5
"""Steps averaged into one point of the curve."""
DROP = 0.02
"""What a domain must lie below its teacher, in reward, to count as dropped."""

Scores = dict[str, dict[str, float]]


def prepare(project: Path, target: Path, seed: int, prompts: int, threads: int) -> Layout:
    """A project for one seed, with `prompts` in each benchmark and the rival node in its recipe."""
    layout = Layout(target)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(project / "models" / "base", target / "models" / "base", dirs_exist_ok=True)
    content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    content |= {"seed": seed, "threads": threads}
    for source in content["curation"]["sources"].values():
        source["benchmark"] = prompts
    node = copy.deepcopy(next(iter(content["distill"].values())))
    rival = {key: value for key, value in node.items() if key not in ("teachers", "importance")}
    content["rl"][RIVAL] = {**rival, "max_refills": 0}
    write_atomic(layout.params, yaml.safe_dump(content, sort_keys=False))
    return layout


def build(layout: Layout, seed: int) -> None:
    """Every node and evaluation that has not been built yet."""
    recipe = load(layout.params)
    if not (layout.root / "data" / "report.json").exists():
        _cascade(layout, seed, "node", "curate")
    for name, node in recipe.ordered().items():
        if not (layout.checkpoint(name) if isinstance(node, Node) else layout.decision(name)).exists():
            _cascade(layout, seed, "node", name)
        if isinstance(node, Node) and not (layout.root / "results" / "scores" / f"{name}.json").exists():
            _cascade(layout, seed, "evaluate", name)


def _cascade(layout: Layout, seed: int, *arguments: str) -> None:
    print(f"seed {seed}: {' '.join(arguments)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "cascade", *arguments]
    done = subprocess.run(command, cwd=layout.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise CascadeError(
            f"seed {seed}: {' '.join(arguments)} failed: {done.stderr.decode().strip().splitlines()[-1]}"
        )


def scores_of(layout: Layout, recipe: Recipe) -> Scores:
    return {name: read_json(layout.root / "results" / "scores" / f"{name}.json") for name in recipe.training}


def reward_curve(layout: Layout, node: str, domains: list[str]) -> list[float]:
    """Mean reward over the domains on the prompts of each step, averaged over windows of steps."""
    with open(layout.training(node) / "steps.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_step = [statistics.fmean(float(row[f"rollout/reward/{d}"]) for d in domains) for row in rows]
    return [statistics.fmean(by_step[i : i + WINDOW]) for i in range(0, len(by_step), WINDOW)]


def taught(scores: Scores, decision: dict) -> dict[str, float]:
    """Domain → score of the teacher chosen for it."""
    return {domain: scores[chosen["node"]][domain] for domain, chosen in decision["teachers"].items()}


def recovered(before: dict[str, float], after: dict[str, float], teacher: dict[str, float]) -> dict:
    """Recovery rate of a distillation over the domains where its start lay below the teacher: the gaps closed, over
    the gaps. None where there was none."""
    dropped = [domain for domain in teacher if teacher[domain] - before[domain] >= DROP]
    total = [sum(values[domain] for domain in dropped) for values in (before, after, teacher)]
    return {"rate": recovery_rate(*total), "domains": dropped}


def repairs(layout: Layout, recipe: Recipe) -> list[str]:
    """A sentence for each repair that was needed."""
    results, told = load_results(recipe, layout), []
    for name in recipe.repair:
        recoveries, regressed = results.recoveries(name), results.decisions[name]["regressed"]
        fell = [r for r in recoveries if r.domain in regressed]
        if not fell:
            continue
        rate = pooled_recovery(fell)
        gaps = ", ".join(
            f"{r.domain} {100 * r.before:.1f} → {100 * r.after:.1f}, teacher {100 * r.goal:.1f}" for r in fell
        )
        found = "nothing to recover" if rate is None else f"recovery rate {rate:.0%}"
        others = [(r.after - r.before, r.domain) for r in recoveries if r.domain not in regressed]
        cost = f"; of the others at worst {100 * min(others)[0]:+.1f} ({min(others)[1]})" if others else ""
        told.append(f"{name}: {found} ({gaps}){cost}.")
    return told


def claims(recipe: Recipe, mean: Scores, teacher: dict[str, float], recovery: dict) -> list[str]:
    """What the means over seeds say, a sentence each."""
    name, distillation = next(iter(recipe.distill.items()))
    first, final = mean[next(iter(recipe.sft))], mean[name]
    found = []
    for stage, node in recipe.rl.items():
        if stage == RIVAL:
            continue
        before, after = mean[node.init], mean[stage]
        gains = {domain: after[domain] - before[domain] for domain in node.mix}
        by_domain = ", ".join(f"{domain} {100 * gain:+.1f}" for domain, gain in gains.items())
        total = f"{100 * statistics.fmean(gains.values()):+.1f} points on its own domains ({by_domain})"
        others = {domain: after[domain] - before[domain] for domain in recipe.domains if domain not in node.mix}
        worst = min(others, key=lambda domain: others[domain])
        found.append(f"{stage}: {total}; what it did to the others: at worst {100 * others[worst]:+.1f} ({worst}).")
    if recovery["rate"] is None:
        found.append(f"{name}: no domain had dropped by {100 * DROP:.0f} points or more.")
    else:
        dropped = ", ".join(
            f"{d} {100 * mean[distillation.init][d]:.1f} → {100 * final[d]:.1f}, teacher {100 * teacher[d]:.1f}"
            for d in recovery["domains"]
        )
        found.append(f"{name}: recovery rate {recovery['rate']:.0%} on what had dropped ({dropped}).")
    behind = {domain: teacher[domain] - final[domain] for domain in recipe.domains}
    worst = max(behind, key=lambda domain: behind[domain])
    found.append(f"{name}: furthest below its teacher in {worst}, by {100 * behind[worst]:.1f} points.")
    gain = statistics.fmean(final[d] - first[d] for d in recipe.domains)
    found.append(f"{name}: {100 * gain:+.1f} points over {next(iter(recipe.sft))} on average over the domains.")
    return found


def summarise(layouts: dict[int, Layout]) -> dict:
    recipe = load(next(iter(layouts.values())).params)
    per_seed = {seed: scores_of(layout, recipe) for seed, layout in layouts.items()}
    table = {
        node: {
            domain: {
                "mean": statistics.fmean(values),
                "se": statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None,
            }
            for domain in recipe.domains
            for values in [[scores[node][domain] for scores in per_seed.values()]]
        }
        for node in recipe.training
    }
    name, node = next(iter(recipe.distill.items()))
    teachers = {seed: taught(per_seed[seed], read_json(at.decision(node.teachers))) for seed, at in layouts.items()}
    recovery = {seed: recovered(of[node.init], of[name], teachers[seed]) for seed, of in per_seed.items()}
    mean = {made: {domain: cell["mean"] for domain, cell in row.items()} for made, row in table.items()}
    mean_teacher = {d: statistics.fmean(of[d] for of in teachers.values()) for d in recipe.domains}
    mean_recovery = recovered(mean[node.init], mean[name], mean_teacher)
    curves = {
        method: [
            [(i + 1) * WINDOW, statistics.fmean(points)]
            for i, points in enumerate(
                zip(*(reward_curve(layout, made, list(node.mix)) for layout in layouts.values()), strict=True)
            )
        ]
        for method, made in ((name, name), ("rl", RIVAL))
    }
    return {
        "seeds": sorted(layouts),
        "prompts": next(iter(recipe.curation.sources.values())).benchmark,
        "k": recipe.evaluation.rollouts,
        "table": table,
        "claims": claims(recipe, mean, mean_teacher, mean_recovery),
        "recovery": recovery,
        "repairs": {seed: repairs(layout, recipe) for seed, layout in layouts.items()},
        "checks": len(recipe.repair) * len(layouts),
        "curves": curves,
    }


def as_markdown(summary: dict) -> str:
    domains = list(next(iter(summary["table"].values())))
    lines = [
        f"avg@{summary['k']} on {summary['prompts']} held-out prompts a domain, in percent: mean over seeds "
        f"{', '.join(map(str, summary['seeds']))} ± standard error.",
        "",
        "| node | " + " | ".join(domains) + " | mean |",
        "| --- |" + " ---: |" * (len(domains) + 1),
    ]
    for node, row in summary["table"].items():
        cells = [
            f"{100 * row[d]['mean']:.1f}" + (f" ± {100 * row[d]['se']:.1f}" if row[d]["se"] is not None else "")
            for d in domains
        ]
        mean = statistics.fmean(row[d]["mean"] for d in domains)
        lines.append(f"| {node} | " + " | ".join(cells) + f" | {100 * mean:.1f} |")
    lines += ["", *(f"- {claim}" for claim in summary["claims"])]
    lines += ["", "Recovery rate of the distillation, by seed:", ""]
    for seed, found in summary["recovery"].items():
        rate = (
            "nothing had dropped" if found["rate"] is None else f"{found['rate']:.0%} on {', '.join(found['domains'])}"
        )
        lines.append(f"- seed {seed}: {rate}")
    if summary["checks"]:
        needed = [f"- seed {seed}: {told}" for seed, all_told in summary["repairs"].items() for told in all_told]
        lines += ["", f"Of {summary['checks']} regression checks {len(needed)} asked for a repair:", "", *needed]
    lines += ["", "Mean reward over the domains on the prompts of the steps, from the same start:", ""]
    steps = [point[0] for point in next(iter(summary["curves"].values()))]
    lines += ["| step | " + " | ".join(map(str, steps)) + " |", "| --- |" + " ---: |" * len(steps)]
    lines += [
        f"| {method} | " + " | ".join(f"{value:.3f}" for _, value in points) + " |"
        for method, points in summary["curves"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--prompts", type=int, default=240, help="of each benchmark")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--work", type=Path, default=Path(".cascade/learning"))
    arguments = parser.parse_args()
    layouts = {
        seed: prepare(
            arguments.project,
            (arguments.work / str(seed)).resolve(),
            seed,
            arguments.prompts,
            arguments.threads,
        )
        for seed in arguments.seeds
    }
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(build, layouts.values(), layouts))
    summary = summarise(layouts)
    out = arguments.project / "results" / "benchmarks"
    write_json(out / "learning.json", summary)
    write_json(out / "distillation_versus_rl.json", summary["curves"])
    write_atomic(out / "learning.md", as_markdown(summary))
    figures.to_png(figures.versus(summary["curves"]), out / "distillation_versus_rl.png")
    print(as_markdown(summary))


if __name__ == "__main__":
    main()
