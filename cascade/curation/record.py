"""What the journal says of a curation: hashes of what it read and made, its settings and its report."""

from typing import Any

from cascade.curation import report, sources
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal
from cascade.utils.files import fingerprint, hash_file


def record(recipe: Recipe, layout: Layout, journal: Journal, made: dict[str, Any]) -> None:
    """In the journal: what the data was made from, what was made, and the report."""
    settings = recipe.curation.model_dump(mode="json")
    sources_read = {name: sources.files(source, layout.root) for name, source in recipe.curation.sources.items()}
    journal.rewind(0)
    for name, paths in sources_read.items():
        for path in paths:
            journal.dataset(f"source/{name}", path, hash_file(path), "curation")
    products = [p for folder in ("sft", "rl", "benchmarks") for p in sorted((layout.root / "data" / folder).iterdir())]
    written = {f"made/{path.relative_to(layout.root).as_posix()}": hash_file(path) for path in products}
    journal.tags(written)
    journal.params(settings)
    # Curated anew to other files, it is another run: MLflow changes no parameter.
    journal.tags({"inputs_hash": fingerprint({"settings": settings, "seed": recipe.seed, "made": written})})
    journal.metrics(report.as_metrics(made), step=0)
    journal.artifact(layout.root / "data" / "report.md", "curation")
