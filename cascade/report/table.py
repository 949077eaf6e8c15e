"""The result table: nodes × domains, aligned as text and valid as Markdown."""

from typing import Any

from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.report.results import Results, load_results, pooled_recovery, quantized_rows

BEST = "*"


def result_table(recipe: Recipe, layout: Layout) -> str:
    """Scores in percent with 95 % intervals, the best of each domain marked; then repairs and gates.

    Nodes that have not been evaluated have no row.
    """
    results = load_results(recipe, layout)
    if not results.summaries:
        return "No node has been evaluated yet."
    rows = [["", *recipe.domains, "mean"]]
    best_mean = max(results.mean(node) for node in results.summaries)
    for node in results.summaries:
        cells = [_cell(results, node, domain) for domain in recipe.domains]
        rows.append([node, *cells, _percent(results.mean(node), best=results.mean(node) == best_mean)])
    k = next(iter(results.summaries.values()))["k"]
    lines = [
        *_aligned(rows),
        "",
        f"avg@{k} on held-out prompts in percent, 95 % interval in brackets; {BEST} best of the column.",
    ]
    return "\n".join([*lines, *_conclusions(results)])


def _cell(results: Results, node: str, domain: str) -> str:
    scores = results.summaries[node]["domains"].get(domain)
    if scores is None:
        return "–"
    interval = f"[{100 * scores['ci_low']:.0f}, {100 * scores['ci_high']:.0f}]"
    return f"{_percent(scores['avg@k'], best=scores['avg@k'] == results.best(domain))} {interval}"


def _percent(value: float, *, best: bool) -> str:
    return f"{100 * value:.1f}{BEST if best else ''}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in rows
    ]
    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return [lines[0], rule, *lines[1:]]


def _conclusions(results: Results) -> list[str]:
    lines: list[str] = []
    for node in (*results.recipe.off_policy, *results.recipe.distill, *results.recipe.checks):
        recoveries = results.recoveries(node)
        rate = pooled_recovery(recoveries)
        if rate is not None:
            lost = ", ".join(f"{r.domain} {100 * r.rate:.0f} %" for r in recoveries if r.rate is not None)
            lines.append(f"{node}: recovered {100 * rate:.0f} % of what its start lacked on the teachers ({lost}).")
    lines += [
        f"{row.node}: {row.format}, {100 * row.share:.0f} % of the size of {row.of}, "
        f"KL {row.divergence:.4f} nats a token."
        for row in quantized_rows(results)
    ]
    checks = {node: found for node in results.recipe.checks if (found := results.decisions.get(node))}
    if checks:
        repaired = [node for node, decision in checks.items() if decision["regressed"]]
        lines.append(f"{len(repaired)} of {len(checks)} regression checks led to a repair.")
    compared = [results.decisions[node] for node in (*checks, *results.recipe.gate) if node in results.decisions]
    if further := sum(v["further_rollouts"] for decision in compared for v in decision["domains"].values()):
        lines.append(f"{further:,} rollouts beyond those of the evaluations were compared to decide.")
    lines += [f"{node}: {decision['words']}." for node, decision in checks.items()]
    for node in results.recipe.gate:
        if decision := results.decisions.get(node):
            lines.append(f"{node}: {'passed' if decision['passed'] else 'FAILED'}: {decision['words']}.")
    for node, found in results.solutions.items():
        plain = found["plain"][headline(found)] if "plain" in found else None
        against = f", {headline(found)} of plain samples {_percent(plain['score'], best=False)}" if plain else ""
        budget = f"{found['budget']:,} responses a problem"
        lines.append(f"{node}: {_percent(found['score'], best=False)} on {found['benchmark']} with {budget}{against}.")
    return lines


def headline(summary: dict[str, Any]) -> str:
    """The choice from plain samples that a strategy is compared with."""
    return next(iter(summary["plain"]), "")
