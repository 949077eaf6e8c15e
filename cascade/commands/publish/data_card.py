"""The dataset card of curated data.

Format: https://huggingface.co/docs/hub/datasets-cards; files are listed in `configs`, columns in `dataset_info`.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from cascade.commands.publish.markdown import card, table
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.report.facts import provenance
from cascade.utils.files import hash_file, read_json

DTYPES = {"double": "float64", "float": "float32"}
"""Arrow's type names → those of `dataset_info`, where they differ."""

SPLITS = {"sft": "SFT", "rl": "RL prompts", "benchmark": "benchmark"}


def data_card(recipe: Recipe, layout: Layout) -> str:
    """README.md for data/: one configuration per domain, with RL prompts as `train` and the benchmark as `test`, and
    the configuration `sft` with the packed SFT sequences.

    Raises CascadeError if curation has not run. No licence is stated: each source has its own.
    """
    path = layout.root / "data" / "report.json"
    if not path.exists():
        raise CascadeError(f"{path}: no such file, so there are no facts for a data card; run `cascade node curate`")
    report = read_json(path)
    configs = _configs(recipe, layout)
    metadata = DatasetCardData(
        pretty_name=f"{recipe.name}: curated prompts",
        task_categories=["text-generation"],
        source_datasets=sorted({s.dataset for s in recipe.curation.sources.values() if s.dataset}) or None,
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": split, "path": _glob(layout, files)} for split, files in splits.items()],
            }
            for name, splits in configs.items()
        ],
        dataset_info=[_info(name, splits) for name, splits in configs.items()],
    )
    return card(
        str(metadata.to_yaml()),
        f"# {recipe.name}: curated prompts",
        "Rows of RL and benchmarks are NeMo Gym's, as JSON in the column `row`: the prompt "
        "(`responses_create_params`) and what its environment verifies an answer with.",
        "## Sources",
        _sources(recipe, report),
        "## Curation",
        "Rows in and out of each step. RL prompts and SFT rows that overlap with a benchmark are rejected.",
        *(f"### {SPLITS[split]}\n\n{_steps(report[split])}" for split in SPLITS if split in report),
        "## Files",
        table(
            ["configuration", "split", "rows", "bytes", "SHA-256"],
            [
                (name, split, *_sizes(files), hash_file(files[0])[:16] if len(files) == 1 else f"{len(files)} files")
                for name, splits in configs.items()
                for split, files in splits.items()
            ],
        ),
        "## Provenance",
        table(["what", "value"], list(provenance(recipe, layout).items())),
    )


def _configs(recipe: Recipe, layout: Layout) -> dict[str, dict[str, list[Path]]]:
    """Configuration → split → its existing files."""
    configs: dict[str, dict[str, list[Path]]] = {}
    for domain in recipe.domains:
        for split, path in (("train", layout.prompts(domain)), ("test", layout.benchmark(domain))):
            if path.exists():
                configs.setdefault(domain, {})[split] = [path]
    if sequences := sorted(layout.sft_data.glob("*.parquet")):
        configs["sft"] = {"train": sequences}
    return configs


def _glob(layout: Layout, files: list[Path]) -> str:
    """A pattern that matches the files, relative to data/."""
    first = files[0] if len(files) == 1 else files[0].with_name("*.parquet")
    return first.relative_to(layout.root / "data").as_posix()


def _sizes(files: list[Path]) -> tuple[int, int]:
    """Rows and bytes on disk."""
    return sum(pq.read_metadata(file).num_rows for file in files), sum(file.stat().st_size for file in files)


def _info(name: str, splits: dict[str, list[Path]]) -> dict[str, Any]:
    schema = pq.read_schema(next(iter(splits.values()))[0])
    sizes = []
    for split, files in splits.items():
        rows, size = _sizes(files)
        sizes.append({"name": split, "num_examples": rows, "num_bytes": size})
    return {"config_name": name, "features": [_feature(field) for field in schema], "splits": sizes}


def _feature(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": _dtype(field.type.value_type)}
    return {"name": field.name, "dtype": _dtype(field.type)}


def _dtype(kind: pa.DataType) -> str:
    return DTYPES.get(str(kind), str(kind))


def _sources(recipe: Recipe, report: dict[str, Any]) -> str:
    rows = []
    for name, source in recipe.curation.sources.items():
        origin = (
            f"generated: {source.generator}"
            if source.generator
            else f"Hugging Face: {source.dataset}, {source.split}"
            if source.dataset
            else f"Environments Hub: {source.verifiers.name}"
            if source.verifiers
            else f"Harbor: {source.harbor}"
            if source.harbor
            else f"file: {source.path}"
        )
        counts = [report.get(split, {}).get("sources", {}).get(name, {}).get("kept", 0) for split in SPLITS]
        rows.append([name, origin, source.domain, *counts])
    return table(["source", "origin", "domain", *(f"{title}: rows kept" for title in SPLITS.values())], rows)


def _steps(split: dict[str, Any]) -> str:
    return table(
        ["step", "in", "out", "rejected"],
        [
            (name, s["in"], s["out"], ", ".join(f"{why} {n}" for why, n in s["rejected"].items()) or "none")
            for name, s in split["steps"].items()
        ],
    )
