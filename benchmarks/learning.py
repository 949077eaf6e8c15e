"""What the cascade learned under several seeds, from the projects that `benchmarks.whole_run` built.

Writes results/benchmarks/learning.json and .md: node × domain, means over seeds with standard errors, what is claimed
of them, what distillation recovered, what the regression checks found and repaired, what the gates decided, and what
each run took.
"""

import statistics
from dataclasses import asdict
from pathlib import Path

from benchmarks.revisions import Cost
from cascade.decisions.outcomes import gate_failures
from cascade.evaluation.statistics import recovery_rate
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.report.results import load_results, pooled_recovery
from cascade.utils.files import read_json, write_atomic, write_json

DROP = 0.02
"""What a domain must lie below its teacher, in reward, to count as dropped."""

Scores = dict[str, dict[str, float]]


def scores_of(layout: Layout, recipe: Recipe) -> Scores:
    return {name: read_json(layout.root / "results" / "scores" / f"{name}.json") for name in recipe.training}


def before_distillation(recipe: Recipe) -> str:
    """The node whose losses the first distillation makes good: before its warm-up, where it has one."""
    node = next(iter(recipe.distill.values()))
    while node.init in recipe.off_policy:
        node = recipe.off_policy[node.init]
    return node.init


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
    name, start = next(iter(recipe.distill)), before_distillation(recipe)
    first, final = mean[next(iter(recipe.sft))], mean[name]
    found = []
    for stage, node in recipe.rl.items():
        before, after = mean[node.init], mean[stage]
        gains = {domain: after[domain] - before[domain] for domain in node.mix}
        by_domain = ", ".join(f"{domain} {100 * gain:+.1f}" for domain, gain in gains.items())
        total = f"{100 * statistics.fmean(gains.values()):+.1f} points on its own domains ({by_domain})"
        others = {domain: after[domain] - before[domain] for domain in recipe.domains if domain not in node.mix}
        worst = min(((gain, domain) for domain, gain in others.items()), default=None)
        cost = f"; what it did to the others: at worst {100 * worst[0]:+.1f} ({worst[1]})" if worst else ""
        found.append(f"{stage}: {total}{cost}.")
    if recovery["rate"] is None:
        found.append(f"{name}: no domain had dropped by {100 * DROP:.0f} points or more.")
    else:
        dropped = ", ".join(
            f"{d} {100 * mean[start][d]:.1f} → {100 * final[d]:.1f}, teacher {100 * teacher[d]:.1f}"
            for d in recovery["domains"]
        )
        found.append(f"{name}: recovery rate {recovery['rate']:.0%} on what had dropped ({dropped}).")
    behind = {domain: teacher[domain] - final[domain] for domain in recipe.domains}
    worst = max(behind, key=lambda domain: behind[domain])
    found.append(f"{name}: furthest below its teacher in {worst}, by {100 * behind[worst]:.1f} points.")
    gain = statistics.fmean(final[d] - first[d] for d in recipe.domains)
    found.append(f"{name}: {100 * gain:+.1f} points over {next(iter(recipe.sft))} on average over the domains.")
    return found


def summarise(layouts: dict[int, Layout], costs: dict[int, Cost], machine: str) -> dict:
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
    start = before_distillation(recipe)
    recovery = {seed: recovered(of[start], of[name], teachers[seed]) for seed, of in per_seed.items()}
    mean = {made: {domain: cell["mean"] for domain, cell in row.items()} for made, row in table.items()}
    mean_teacher = {d: statistics.fmean(of[d] for of in teachers.values()) for d in recipe.domains}
    mean_recovery = recovered(mean[start], mean[name], mean_teacher)
    return {
        "seeds": sorted(layouts),
        "prompts": next(iter(recipe.curation.sources.values())).benchmark,
        "k": recipe.evaluation.rollouts,
        "table": table,
        "claims": claims(recipe, mean, mean_teacher, mean_recovery),
        "recovery": recovery,
        "repairs": {seed: repairs(layout, recipe) for seed, layout in layouts.items()},
        "checks": len(recipe.repair) * len(layouts),
        "gates": {seed: gate_failures(recipe, layout) for seed, layout in layouts.items()},
        "costs": {seed: asdict(cost) for seed, cost in costs.items()},
        "machine": machine,
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
    lines += ["", f"Each run, on {summary['machine']}:", ""]
    for seed, cost in summary["costs"].items():
        passed = "; ".join(summary["gates"][seed]) or "the gate passed"
        lines.append(f"- seed {seed}: {cost['wall'] / 60:.1f} minutes, {cost['cpu'] / 60:.1f} of CPU; {passed}")
    return "\n".join(lines) + "\n"


def write(layouts: dict[int, Layout], costs: dict[int, Cost], machine: str, out: Path) -> None:
    """Of each seed its finished project and what that took."""
    summary = summarise(layouts, costs, machine)
    write_json(out / "learning.json", summary)
    write_atomic(out / "learning.md", as_markdown(summary))
    print(as_markdown(summary))
