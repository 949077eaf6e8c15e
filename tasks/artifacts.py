"""Artifacts of a run's page in Prefect: results, heat map, gates and repairs, links to MLflow."""

import base64
import re
from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from cascade.decisions.outcomes import further_rollouts, gate_decisions, repair_decisions
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe
from cascade.report.page import build_report
from cascade.report.table import BEST, result_table
from cascade.tracking import publish
from cascade.tracking.provenance import dvc_hashes, git_revision
from cascade.utils.files import read_json
from tasks.mlflow_links import MLflowLinks


def show_results(recipe: Recipe, layout: Layout) -> None:
    """Publish all journals to MLflow, and put all artifacts on the run's page."""
    show_scores(recipe, layout)
    show_measurements(recipe, layout)


def show_measurements(recipe: Recipe, layout: Layout) -> None:
    """Publish all journals to MLflow, and link to it from the run's page."""
    publish(recipe, layout, [CURATE, *recipe.ordered()])
    links = MLflowLinks(recipe, layout)
    create_markdown_artifact(key="lineage", markdown=lineage_page(recipe, layout, links), description=recipe.name)
    if url := links.run():
        create_link_artifact(key="mlflow", link=url, link_text="MLflow: this run and its nodes")


def show_scores(recipe: Recipe, layout: Layout) -> None:
    """Write the report, and put the current table, heat map and decisions on the run's page."""
    report = build_report(recipe, layout)
    show_table(recipe, layout)
    if (heat_map := report.parent / "figures" / "scores.png").exists():
        create_image_artifact(
            key="heat-map", image_url=data_url(heat_map), description="avg@k of each node in each domain, percent"
        )
    create_link_artifact(key="report", link=report.absolute().as_uri(), link_text="Report: tables and figures")
    for name, decision in gate_decisions(recipe, layout).items():
        create_markdown_artifact(key=f"gate-{name.replace('_', '-')}", markdown=gate_page(name, decision))
    for name, decision in repair_decisions(recipe, layout).items():
        create_markdown_artifact(key=f"repair-{name.replace('_', '-')}", markdown=repair_page(name, decision))


def show_table(recipe: Recipe, layout: Layout) -> None:
    create_markdown_artifact(key="results", markdown=results_page(recipe, layout), description=recipe.name)


def results_page(recipe: Recipe, layout: Layout) -> str:
    """The result table in Markdown, the best of each column bold."""
    table = result_table(recipe, layout).replace(f"{BEST} best of", "bold the best of")
    return re.sub(rf"(\d+\.\d){re.escape(BEST)}", r"**\1**", table)


def data_url(image: Path) -> str:
    """A PNG as a data URL, so that the page needs no file and no other server."""
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"


def lineage_page(recipe: Recipe, layout: Layout, links: MLflowLinks) -> str:
    """Node → its run in MLflow and DVC's hash of its checkpoint; and how to restore its files."""
    lines = ["| node | MLflow | checkpoint in DVC (md5) |", "| --- | --- | --- |"]
    for name in (CURATE, *recipe.ordered()):
        url = links.node(name)
        digest = dvc_hashes(layout.root, name).get(layout.checkpoint(name).relative_to(layout.root).as_posix(), "–")
        lines.append(f"| {name} | {f'[run]({url})' if url else '–'} | {digest} |")
    revision = git_revision(layout.root)
    lines += ["", f"Project: `{layout.root}`", ""]
    if revision is None:
        return "\n".join([*lines, "Not in a git repository."])
    suffix = " with changes that are not committed" if revision.endswith("+") else ""
    return "\n".join([*lines, f"Git revision: `{revision.rstrip('+')}`{suffix}. The files: `dvc checkout` there."])


def gate_page(name: str, decision: dict[str, Any]) -> str:
    return _page(f"Gate {name}: {'passed' if decision['passed'] else 'failed'}", decision)


def repair_page(name: str, decision: dict[str, Any]) -> str:
    result = f"{', '.join(decision['regressed'])} repaired" if decision["regressed"] else "no regression, passed on"
    teachers = [f"{domain} by {teacher['node']}" for domain, teacher in decision["teachers"].items()]
    page = _page(f"Repair {name}: {result}", decision)
    return f"{page}\n\nTaught: {', '.join(teachers)}." if teachers else page


def curation_page(layout: Layout) -> str:
    """Rows drawn and kept by use, and the reasons of rejection."""
    report = read_json(layout.root / "data" / "report.json")
    lines = ["| for | drawn | kept | rejected |", "| --- | ---: | ---: | --- |"]
    for use, counts in report.items():
        if "drawn" not in counts:
            continue
        reasons = [f"{r} {n:,}" for step in counts["steps"].values() for r, n in step["rejected"].items()]
        lines.append(f"| {use} | {counts['drawn']:,} | {counts['kept']:,} | {', '.join(reasons) or 'none'} |")
    packing = report["packing"]
    packed = f"{packing['sequences']:,} sequences of SFT, {packing['fill_rate']:.0%} of their tokens used"
    return "\n".join([*lines, "", f"{packed}."])


def scores_page(checkpoint: str, summary: dict[str, Any]) -> str:
    """Scores of one evaluated checkpoint by domain, in percent, with their 95 % intervals."""
    lines = [f"# {checkpoint}", "", f"| domain | avg@{summary['k']} | 95 % interval |", "| --- | ---: | ---: |"]
    for domain, scores in summary["domains"].items():
        interval = f"{100 * scores['ci_low']:.1f} – {100 * scores['ci_high']:.1f}"
        lines.append(f"| {domain} | {100 * scores['avg@k']:.1f} | {interval} |")
    return "\n".join([*lines, f"| mean | {100 * summary['mean']['avg@k']:.1f} | |"])


def _page(title: str, decision: dict[str, Any]) -> str:
    domains = decision["domains"]
    rows = [
        f"| {domain} | {100 * v['difference']:+.1f} | {100 * v['bounds'][0]:+.1f} to {100 * v['bounds'][1]:+.1f} "
        f"| {100 * v['visible_loss']:.1f} | {v['prompts']} | {v['further_rollouts']:,} | {v['best']} | {v['verdict']} |"
        for domain, v in domains.items()
    ]
    return "\n".join(
        [
            f"# {title}",
            "",
            decision["words"],
            "",
            "| domain | difference | bounds | smallest visible loss | prompts | further rollouts | best earlier "
            "| verdict |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
            *rows,
            "",
            f"In points of reward; {further_rollouts(domains):,} rollouts beyond those of the evaluations.",
        ]
    )
