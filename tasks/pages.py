"""What a run's page in Prefect shows beside its tasks: the result table, gates and repairs, links to measurements."""

from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe
from cascade.report import build_report, result_table
from cascade.tracking import publish
from tasks.gates import gate_decisions, repair_decisions


def show_results(recipe: Recipe, layout: Layout) -> None:
    """Write the report, publish everything measured, and put table, decisions and links on the run's page."""
    report = build_report(recipe, layout)
    publish(recipe, layout, [CURATE, *recipe.ordered()])
    create_markdown_artifact(key="results", markdown=result_table(recipe, layout), description=recipe.name)
    create_link_artifact(key="report", link=report.absolute().as_uri(), link_text="Report: tables and figures")
    for name, decision in gate_decisions(recipe, layout).items():
        create_markdown_artifact(key=f"gate-{name.replace('_', '-')}", markdown=gate_page(name, decision))
    for name, decision in repair_decisions(recipe, layout).items():
        create_markdown_artifact(key=f"repair-{name.replace('_', '-')}", markdown=repair_page(name, decision))


def gate_page(name: str, decision: dict[str, Any]) -> str:
    return _page(f"Gate {name}: {'passed' if decision['passed'] else 'failed'}", decision)


def repair_page(name: str, decision: dict[str, Any]) -> str:
    done = f"{', '.join(decision['regressed'])} repaired" if decision["regressed"] else "no regression, passed on"
    teachers = [f"{domain} by {teacher['node']}" for domain, teacher in decision["teachers"].items()]
    page = _page(f"Repair {name}: {done}", decision)
    return f"{page}\n\nTaught: {', '.join(teachers)}." if teachers else page


def _page(title: str, decision: dict[str, Any]) -> str:
    lines = [f"# {title}", "", decision["words"], ""]
    return "\n".join([*lines, *(f"- {domain}: {found['words']}" for domain, found in decision["domains"].items())])
