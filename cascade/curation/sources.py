"""Where rows come from: task generators, local files, Hugging Face datasets. All streamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq

from cascade import environments
from cascade.environments.registry import is_named
from cascade.environments.synthetic.rows import shortened
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source
from cascade.seeds import derive_seed

Raw = dict[str, Any] | RowError
"""A row as its source has it, or why it cannot even be read."""

_PARQUET_ROWS = 256


def generated(source: Source, name: str, use: str, level: int, count: int, seed: int) -> Iterator[Raw]:
    """Up to `count` rows of an environment's generator. Every use draws from a seed of its own."""
    assert source.generator is not None
    drawn = derive_seed(seed, "curate", name, use)
    rng = Random(derive_seed(drawn, "brief", level))
    for row in environments.get(source.generator).generate(count, drawn, level):
        if use == "sft" and rng.random() < source.brief:
            row["demonstration"] = _brief(row["demonstration"], rng)
        yield row


def _brief(shown: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The demonstration with the opening of its reasoning alone; an episode's, in every turn."""
    if "messages" not in shown:
        return {**shown, "reasoning": shortened(shown["reasoning"], rng)}
    turns = [
        {**turn, "reasoning_content": shortened(turn["reasoning_content"], rng)}
        if turn["role"] == "assistant"
        else turn
        for turn in shown["messages"]
    ]
    return {**shown, "messages": turns}


def stored(source: Source, name: str, root: Path) -> Iterator[Raw]:
    """The rows of a file, several files or a dataset, in their order; those of the source's agent where it has one.

    Which server judges a row is the recipe's to say: a `gym_url` that comes with a row is dropped.

    Raises CascadeError naming the recipe's key where there is no such file or dataset.
    """
    for row in _all_rows(source, name, root):
        if source.agent is not None and not _is_of_agent(row, source.agent):
            continue
        if isinstance(row, dict):
            row.pop("gym_url", None)
            if source.gym_url is not None:
                row |= {"environment": "gym_server", "gym_url": source.gym_url}
        yield row


def files(source: Source, root: Path) -> list[Path]:
    """The files that the source's `path` names, in order; none of a generator or dataset."""
    if source.path is None:
        return []
    return sorted(root.glob(source.path)) if not Path(source.path).is_absolute() else _absolute(Path(source.path))


def _all_rows(source: Source, name: str, root: Path) -> Iterator[Raw]:
    if source.dataset is not None:
        yield from _dataset(source, name, root)
        return
    paths = files(source, root)
    if not paths:
        raise CascadeError(f"curation.sources.{name}.path: no file matches {source.path} (from {root})")
    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".jsonl":
            yield from _jsonl(path)
        else:
            raise CascadeError(f"curation.sources.{name}.path: {path} is neither .jsonl nor .parquet")


def _is_of_agent(row: Raw, agent: str) -> bool:
    """Rows that cannot be read pass, to be counted as rejects."""
    if isinstance(row, RowError):
        return True
    return is_named(row, agent)


def _absolute(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def _jsonl(path: Path) -> Iterator[Raw]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield RowError("not_json", f"{path.name}:{number}: {error}")
                continue
            yield row if isinstance(row, dict) else RowError("not_json", f"{path.name}:{number}: not a JSON object")


def _parquet(path: Path) -> Iterator[Raw]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise CascadeError(f"{path}: not a Parquet file ({error})") from None
    with file:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                yield _without_nulls(row)


def _dataset(source: Source, name: str, root: Path) -> Iterator[Raw]:
    import datasets  # takes over a second, and most recipes have no such source

    local = root / str(source.dataset)
    try:
        rows = datasets.load_dataset(
            str(local) if local.is_dir() else source.dataset, source.subset, split=source.split, streaming=True
        )
    except (OSError, ValueError) as error:
        raise CascadeError(
            f"curation.sources.{name}.dataset: cannot open {source.dataset} "
            f"(subset {source.subset}, split {source.split}): {' '.join(str(error).split())[:300]}"
        ) from None
    for row in rows:
        yield _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    """Columnar files fill in as null each field that some other row has: drop those."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
