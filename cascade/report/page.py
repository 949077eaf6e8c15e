"""One self-contained HTML page without scripts and external requests; readable on a phone and on paper."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from cascade.layout import Layout
from cascade.recipe import REPORT, Recipe
from cascade.report import facts, figures
from cascade.report.before_after import before_after, shortened
from cascade.report.graph import graph_svg
from cascade.report.results import BY_DOMAIN, Recovery, Results, load_results, pooled_recovery, quantized_rows
from cascade.tracking import Journal
from cascade.utils.files import write_atomic
from cascade.utils.machine import machine

SAMPLES = 4
"""Rollouts shown for each node, from its last sampled step."""


def build_report(recipe: Recipe, layout: Layout, out: Path | None = None) -> Path:
    """Write index.html and figures/*.png to `out`, by default report/, and return the page's path.

    Nodes that have not run are left out. The figures are written to the journal of the pipeline run, and
    published to MLflow with it.
    """
    directory = out or layout.root / "report"
    results = load_results(recipe, layout)
    distillations = (*recipe.off_policy, *recipe.distill, *recipe.repair)
    recoveries = {node: results.recoveries(node) for node in distillations}
    # No step of an off-policy distillation has rollouts of its own, and a mere merge has no steps.
    on_policy = [node for node in results.steps if node not in recipe.off_policy]
    curves = {node: found for node, found in recoveries.items() if found and node in on_policy}
    figures_by_name: dict[str, Figure] = {}
    if results.summaries:
        figures_by_name["scores"] = figures.heat_map(results)
    for node, found in curves.items():
        figures_by_name[f"recovery_{node}"] = figures.recovery_curve(results, node, found)
    for node, summary in results.solutions.items():
        figures_by_name[f"budget_{node}"] = figures.budget_curve(summary)
    pngs = [figures.to_png(figure, directory / "figures" / f"{name}.png") for name, figure in figures_by_name.items()]
    answers = before_after(results, layout)
    node_costs = facts.costs(results, layout)
    costs = [*node_costs, facts.total(node_costs)] if node_costs else []
    environment = Environment(
        loader=PackageLoader("cascade.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        recipe=recipe,
        results=results,
        graph=Markup(graph_svg(results)),
        shade=figures.shade,
        panels={node: _svgs(figures.stage_panels(results, node)) for node in results.steps},
        curves={n: _svgs(figures.recovery_panels(results, n, found)) for n, found in curves.items()},
        by_domain={node: means for node in results.steps if (means := results.means_by_domain(node))},
        measured=BY_DOMAIN,
        titles_of=lambda metrics: [BY_DOMAIN[metric][0] for metric in metrics],
        measured_in=lambda means: [m for m in BY_DOMAIN if any(m in of_domain for of_domain in means.values())],
        recoveries=recoveries,
        budgets={node: _svgs({"": figures_by_name[f"budget_{node}"]})[""] for node in results.solutions},
        pooled={node: pooled_recovery(results.recoveries(node)) for node in (*recoveries, *recipe.qad)},
        quantized=quantized_rows(results),
        samples={node: _last_samples(rows) for node, rows in results.samples.items()},
        answered=answers,
        shortened=shortened,
        costs=costs,
        made_with={**facts.provenance(recipe, layout), **machine(), **facts.versions()},
        names=[domain.replace("_", " ") for domain in recipe.domains],
        contents=_contents(results, recoveries, bool(answers), bool(costs)),
    )
    index = directory / "index.html"
    write_atomic(index, page)
    journal = Journal(layout.journal(REPORT))
    journal.rewind(0)
    for path in (index, *pngs):
        journal.artifact(path, "report")
    return index


def _svgs(figures_by_name: dict[str, Figure]) -> dict[str, Markup]:
    return {name: Markup(figures.to_svg(figure)) for name, figure in figures_by_name.items()}


def _last_samples(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last][:SAMPLES]


def _contents(
    results: Results, recoveries: dict[str, list[Recovery]], answered: bool, costs: bool
) -> list[tuple[str, str]]:
    """(anchor, title) of the page's sections."""
    recipe, decided = results.recipe, results.decisions
    parts = [
        (bool(results.summaries), "scores", "Scores"),
        *((node in decided, node, f"Gate {node}") for node in recipe.gate),
        (any(node in results.steps for node in recipe.quantize), "quantized", "Quantised"),
        (any(node in decided for node in recipe.checks), "checks", "Regression checks"),
        *((node in decided, node, f"Teachers: {node}") for node in recipe.teachers),
        *((bool(found), f"recovery-{node}", f"Recovery: {node}") for node, found in recoveries.items()),
        (bool(results.solutions), "test-time", "Test-time scaling"),
        (bool(results.steps), "training", "Training"),
        (answered, "answers", "Before and after"),
        (bool(results.samples), "samples", "Sample rollouts"),
        (costs, "costs", "Costs"),
        (True, "made-with", "Made with"),
    ]
    return [(anchor, title) for present, anchor, title in parts if present]
