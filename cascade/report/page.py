"""One self-contained HTML page: no script, no request to anywhere; readable on a phone and on paper."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

import cascade
from cascade.files import read_json, write_atomic
from cascade.layout import Layout
from cascade.recipe import REPORT, Recipe
from cascade.report import figures
from cascade.report.graph import graph_svg
from cascade.report.results import Results, load_results, pooled_recovery
from cascade.tracking import Journal

PACKAGES = ("torch", "transformers", "datasets", "pyarrow", "mlflow", "dvc", "prefect", "reasoning-gym", "math-verify")

VERSUS = "distillation_versus_rl"

SAMPLES = 4
"""Rollouts shown of each node, from its last sampled step."""


def build_report(recipe: Recipe, layout: Layout, out: Path | None = None) -> Path:
    """Write index.html and figures/*.png to `out`, by default report/, and return the page's path.

    Nodes that have not run are left out. The figures are entered in the journal of the pipeline run, so they
    appear in MLflow with the next publication.
    """
    directory = out or layout.root / "report"
    results = load_results(recipe, layout)
    versus = _versus(layout)
    recoveries = {node: results.recoveries(node) for node in (*recipe.distill, *recipe.repair) if node in results.steps}
    drawn: dict[str, Figure] = {}
    if results.summaries:
        drawn["scores"] = figures.heat_map(results)
    if results.steps:
        drawn["training"] = figures.all_stages(results)
    for node, found in recoveries.items():
        if found:
            drawn[f"recovery_{node}"] = figures.recovery_curve(results, node, found)
    if versus:
        drawn[VERSUS] = figures.versus(versus)
    pngs = [figures.to_png(figure, directory / "figures" / f"{name}.png") for name, figure in drawn.items()]
    environment = Environment(
        loader=PackageLoader("cascade.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        recipe=recipe,
        results=results,
        graph=Markup(graph_svg(results)),
        shade=figures.shade,
        versus=_svgs({"": drawn[VERSUS]}) if versus else {},
        panels={node: _svgs(figures.stage_panels(results, node)) for node in results.steps},
        curves={n: _svgs(figures.recovery_panels(results, n, found)) for n, found in recoveries.items()},
        recoveries=recoveries,
        pooled={node: pooled_recovery(found) for node, found in recoveries.items()},
        samples={node: _shown(rows) for node, rows in results.samples.items()},
        costs=_costs(results),
        versions=_versions(),
    )
    index = directory / "index.html"
    write_atomic(index, page)
    journal = Journal(layout.journal(REPORT))
    journal.rewind(0)
    for path in (index, *pngs):
        journal.artifact(path, "report")
    return index


def _svgs(drawn: dict[str, Figure]) -> dict[str, Markup]:
    return {name: Markup(figures.to_svg(figure)) for name, figure in drawn.items()}


def _versus(layout: Layout) -> dict[str, list[tuple[int, float]]]:
    """Method → (step, mean reward): what the benchmark of distillation against RL at equal steps left."""
    path = layout.root / "results" / "benchmarks" / f"{VERSUS}.json"
    return {m: [(int(s), float(v)) for s, v in p] for m, p in read_json(path).items()} if path.exists() else {}


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last][:SAMPLES]


def _costs(results: Results) -> list[dict[str, Any]]:
    costs = [
        {"node": n, "steps": len(next(iter(results.steps[n].values()))), **{k: m[k] for k in ("seconds", "tokens")}}
        for n, m in results.manifests.items()
        if results.steps.get(n)
    ]
    total = {"node": "all", **{key: sum(cost[key] for cost in costs) for key in ("steps", "seconds", "tokens")}}
    return [*costs, total] if costs else []


def _versions() -> dict[str, str]:
    found = {"cascade": cascade.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}
