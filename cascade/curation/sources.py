"""Sources of rows: task generators, local files, Hugging Face datasets, other environment formats. All are streamed."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from datetime import time as clock
from decimal import Decimal
from itertools import chain
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, TextIO
from uuid import UUID

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cascade import environments
from cascade.environments import harbor, verifiers
from cascade.environments.registry import is_named
from cascade.environments.synthetic.rows import shortened
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source
from cascade.utils.seeds import derive_seed

Raw = dict[str, Any] | RowError
"""A row as stored in its source, or the error with which it could not be read."""

_PARQUET_ROWS = 256
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_TEXT: Any = {"encoding": "utf-8-sig", "errors": "surrogateescape"}


def generated(source: Source, name: str, use: str, level: int, count: int, seed: int) -> Iterator[Raw]:
    """Up to `count` rows of an environment's generator. Each use has its own seed."""
    assert source.generator is not None
    use_seed = derive_seed(seed, "curate", name, use)
    rng = Random(derive_seed(use_seed, "brief", level))
    for row in environments.get(source.generator).generate(count, use_seed, level):
        if use == "sft" and rng.random() < source.brief:
            row["demonstration"] = _brief(row["demonstration"], rng)
        yield row


def _brief(demonstration: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The demonstration with truncated reasoning; in an episode, truncated in every turn."""
    if "messages" not in demonstration:
        return {**demonstration, "reasoning": shortened(demonstration["reasoning"], rng)}
    turns = [
        {**turn, "reasoning_content": shortened(turn["reasoning_content"], rng)}
        if turn["role"] == "assistant"
        else turn
        for turn in demonstration["messages"]
    ]
    return {**demonstration, "messages": turns}


def stored(source: Source, name: str, root: Path) -> Iterator[Raw]:
    """The rows of a file, several files or a dataset, in order; if the source has an `agent`, only that agent's rows.

    Only the recipe decides which server verifies a row: a `gym_url` in the row itself is dropped.

    Raises CascadeError naming the recipe's key if the file or dataset does not exist.
    """
    for row in _all_rows(source, name, root):
        if source.agent is not None and not _is_of_agent(row, source.agent):
            continue
        if isinstance(row, dict):
            row.pop("gym_url", None)
            if source.grading is not None:
                row["grading"] = source.grading
            if source.gym_url is not None:
                row |= {"environment": "gym_server", "gym_url": source.gym_url}
        yield row


def files(source: Source, root: Path) -> list[Path]:
    """The files that match the source's `path` or `harbor`, in order; empty for other kinds of source."""
    if source.harbor is not None:
        return [path for task in _glob(source.harbor, root) for path in sorted(task.rglob("*")) if path.is_file()]
    if source.path is None:
        return []
    return _glob(source.path, root)


def _glob(pattern: str, root: Path) -> list[Path]:
    return sorted(root.glob(pattern)) if not Path(pattern).is_absolute() else _absolute(Path(pattern))


def _all_rows(source: Source, name: str, root: Path) -> Iterator[Raw]:
    if source.dataset is not None:
        yield from _dataset(source, name, root)
        return
    if source.verifiers is not None:
        hub = source.verifiers
        yield from verifiers.tasks(hub.name, hub.python, hub.arguments)
        return
    if source.harbor is not None:
        yield from _harbor(source.harbor, name, root)
        return
    paths = files(source, root)
    if not paths:
        raise CascadeError(f"curation.sources.{name}.path: no file matches {source.path} (from {root})")
    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet(path, str(path))
        elif path.suffix == ".jsonl":
            with open(path, **_TEXT) as file:
                yield from _jsonl(file, path.name)
        else:
            raise CascadeError(f"curation.sources.{name}.path: {path} is neither .jsonl nor .parquet")


def _harbor(pattern: str, name: str, root: Path) -> Iterator[Raw]:
    tasks = [path for path in _glob(pattern, root) if (path / harbor.CONFIG).is_file()]
    if not tasks:
        raise CascadeError(f"curation.sources.{name}.harbor: no {harbor.CONFIG} in {pattern} (from {root})")
    for path in tasks:
        try:
            yield harbor.task(path)
        except RowError as error:
            yield error


def _is_of_agent(row: Raw, agent: str) -> bool:
    """True also for rows that could not be read, so that they are counted as rejects."""
    if isinstance(row, RowError):
        return True
    return is_named(row, agent)


def _absolute(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def _jsonl(lines: Iterable[str], name: str) -> Iterator[Raw]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield RowError("not_json", f"{name}:{number}: {error}")
            continue
        yield row if isinstance(row, dict) else RowError("not_json", f"{name}:{number}: not a JSON object")


def _json(file: TextIO, name: str) -> Iterator[Raw]:
    """A .json file of a dataset: an array of rows, a single row over several lines, or JSON Lines."""
    first = file.readline()
    if not first.lstrip().startswith("["):
        try:
            json.loads(first)
        except ValueError:
            pass
        else:
            yield from _jsonl(chain([first], file), name)
            return
    try:
        content = json.loads(first + file.read())
    except ValueError as error:
        yield RowError("not_json", f"{name}: {error}")
        return
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        yield row if isinstance(row, dict) else RowError("not_json", f"{name}: row {number} is not a JSON object")


def _parquet(source: Any, name: str) -> Iterator[Raw]:
    try:
        file = pq.ParquetFile(source)
    except (OSError, ValueError) as error:
        raise CascadeError(f"{name}: not a Parquet file ({error})") from None
    with file:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            kinds = {column.name: column.type for column in batch.schema}
            for row in batch.to_pylist():
                try:
                    yield {key: _of_column(v, kinds[key]) for key, v in row.items() if v is not None}
                except RowError as error:
                    yield error


def _of_column(value: Any, kind: pa.DataType) -> Any:
    """A value converted to JSON's types by its column's type. Columnar files fill a field that only other rows have
    with null: such fields are dropped. A JSON column (`arrow.json`, which `datasets` writes) is parsed."""
    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        try:
            return json.loads(value)
        except ValueError:  # `datasets` writes the text "007" of a mixed column without its quotes.
            return value
    if pa.types.is_struct(kind):
        return {key: _of_column(v, kind.field(key).type) for key, v in value.items() if v is not None}
    if pa.types.is_map(kind):
        return {str(_plain(key)): _of_column(v, kind.item_type) for key, v in value}
    if isinstance(value, list):
        return [_of_column(item, kind.value_type) for item in value]
    return _plain(value)


def _dataset(source: Source, name: str, root: Path) -> Iterator[Raw]:
    """JSON and Parquet files are read like those of a `path`: `datasets` would convert every value to the type it
    infers for the column (texts to dates, integers to floats), and fail at the first value that does not fit."""
    import datasets  # takes over a second, and most recipes have no such source

    local = root / str(source.dataset)
    place = str(local) if local.is_dir() else str(source.dataset)
    try:
        builder = datasets.load_dataset_builder(place, source.subset)
        files = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
        if files and source.split not in files:
            raise ValueError(f"it has the splits {', '.join(files)}")
        readers = {_reader(file) for file in files.get(source.split, [])}
        if not files or None in readers:
            rows = datasets.load_dataset(place, source.subset, split=source.split, streaming=True)
    except (OSError, ValueError) as error:
        raise CascadeError(
            f"curation.sources.{name}.dataset: cannot open {source.dataset} "
            f"(subset {source.subset}, split {source.split}): {' '.join(str(error).split())[:300]}"
        ) from None
    if not files or None in readers:
        yield from _of_other_files(rows)
        return
    for file in files[source.split]:
        short = PurePosixPath(file).name
        if (reader := _reader(file)) is _parquet:
            with fsspec.open(file, "rb") as stream:
                yield from _parquet(stream, short)
        elif reader is not None:
            with fsspec.open(file, "r", compression="infer", **_TEXT) as stream:
                yield from reader(stream, short)


def _reader(file: str) -> Callable[[Any, str], Iterator[Raw]] | None:
    """The function that reads a file of a dataset; None if `datasets` has to read it."""
    parts = PurePosixPath(file).suffixes[-2:]
    kind = parts[0] if parts[-1:] and parts[-1] in _COMPRESSED else parts[-1] if parts else ""
    return {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".parquet": _parquet}.get(kind)


def _of_other_files(rows: Iterable[dict[str, Any]]) -> Iterator[Raw]:
    for row in rows:
        try:
            yield _without_nulls(row)
        except RowError as error:
            yield error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    """A scalar converted to JSON's types. Raises RowError for a type that JSON does not have."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, date | clock):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise RowError("bad_row", f"a value of type {type(value).__name__}, which JSON does not have")
