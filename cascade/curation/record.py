"""Log a curation to the journal: hashes of its inputs and outputs, settings, report."""

from typing import Any

from cascade.curation import report, sources
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal
from cascade.utils.files import fingerprint, hash_file


def record(recipe: Recipe, layout: Layout, journal: Journal, curation_report: dict[str, Any]) -> None:
    """Write sources, outputs, settings and the report to the journal."""
    settings = recipe.curation.model_dump(mode="json")
    sources_read = {name: sources.files(source, layout.root) for name, source in recipe.curation.sources.items()}
    journal.rewind(0)
    for name, paths in sources_read.items():
        for path in paths:
            journal.dataset(f"source/{name}", path, hash_file(path), "curation")
    products = [
        p
        for folder in ("sft", "rl", "benchmarks", "held_out")
        for p in sorted((layout.root / "data" / folder).iterdir())
    ]
    output_hashes = {f"made/{path.relative_to(layout.root).as_posix()}": hash_file(path) for path in products}
    journal.tags(output_hashes)
    journal.params(settings)
    # Other outputs make another MLflow run, because MLflow cannot change a parameter.
    journal.tags({"inputs_hash": fingerprint({"settings": settings, "seed": recipe.seed, "made": output_hashes})})
    journal.metrics(report.as_metrics(curation_report), step=0)
    journal.artifact(layout.root / "data" / "report.md", "curation")
