"""Sources of rows: task generators, local files, Hugging Face datasets, other environment formats.

All are streamed, in shards that are read by themselves: ranges of bytes of a JSON Lines file, row groups of a Parquet
file, whole files where they are compressed or remote.
"""

import base64
import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from datetime import time as clock
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from random import Random
from typing import IO, Any, cast
from uuid import UUID

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from httpx2 import TransportError
from huggingface_hub.errors import HfHubHTTPError

from cascade import environments
from cascade.environments import harbor, verifiers
from cascade.environments.registry import is_named
from cascade.environments.synthetic.rows import shortened
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source
from cascade.utils.seeds import derive_seed

Raw = dict[str, Any] | RowError
"""A row as stored in its source, or the error with which it could not be read."""

SHARD_BYTES = 1 << 25
"""Size of a shard of a local file that can be split."""

_PARQUET_ROWS = 256
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".xz": "xz"}
_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_OPENERS: dict[str | None, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
_NETWORK = (TransportError, HfHubHTTPError, ConnectionError, TimeoutError)
"""What ends a run where damage of a file ends the file: another run would read the rest."""


@dataclass(frozen=True)
class Shard:
    """A part of a source: bytes `begin` to `end` of a JSON Lines file or row groups of a Parquet file; all of `file`
    where `end` is None; the whole source where there is no file."""

    file: str = ""
    begin: int = 0
    end: int | None = None


class UnreadableRow(RowError):
    """A row that could not be read. `line` is counted from the beginning of the shard, from 1."""

    def __init__(self, code: str, shard: Shard, line: int, reason: str):
        super().__init__(code, reason)
        self.shard = shard
        self.line = line

    def __str__(self) -> str:
        begin = _lines_before(self.shard.file, self.shard.begin)
        return f"{PurePosixPath(self.shard.file).name}:{begin + self.line}: {super().__str__()}"


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
    """The rows of all shards, in order, as `read` gives them. Raises CascadeError as `shards` does."""
    for shard in shards(source, name, root):
        yield from read(shard, source, name, root)


def shards(source: Source, name: str, root: Path) -> list[Shard]:
    """The shards of a source, in order.

    Raises CascadeError naming the recipe's key if the file or dataset does not exist.
    """
    if source.dataset is not None:
        return _dataset_shards(source, name, root)
    if source.verifiers is not None or source.harbor is not None:
        return [Shard()]
    paths = files(source, root)
    if not paths:
        raise CascadeError(f"curation.sources.{name}.path: no file matches {source.path} (from {root})")
    for path in paths:
        if _kind(str(path)) is None:
            raise CascadeError(f"curation.sources.{name}.path: {path} is neither .jsonl nor .parquet")
    return [shard for path in paths for shard in _shards_of(str(path))]


def read(shard: Shard, source: Source, name: str, root: Path) -> Iterator[Raw]:
    """The rows of a shard, in order; if the source has an `agent`, only that agent's rows.

    Only the recipe decides which server verifies a row: a `gym_url` in the row itself is dropped.
    Raises CascadeError where the network fails.
    """
    try:
        yield from _kept(_rows(shard, source, name, root), source)
    except _NETWORK as error:
        of, line = source.dataset or shard.file or "it", " ".join(str(error).split()) or type(error).__name__
        raise CascadeError(f"curation.sources.{name}: reading {of} broke off ({line[:200]}); run it again") from None


def _kept(rows: Iterable[Raw], source: Source) -> Iterator[Raw]:
    for row in rows:
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


def _rows(shard: Shard, source: Source, name: str, root: Path) -> Iterator[Raw]:
    if shard.file:
        yield from {"jsonl": _jsonl, "json": _json, "parquet": _parquet}[_kind(shard.file) or "jsonl"](shard)
    elif source.verifiers is not None:
        hub = source.verifiers
        yield from verifiers.tasks(hub.name, hub.python, hub.arguments)
    elif source.harbor is not None:
        yield from _harbor(source.harbor, name, root)
    else:
        yield from _of_other_files(_builder(source, root)[1].as_streaming_dataset(source.split))


def _kind(file: str) -> str | None:
    """How a file is read; None if `datasets` has to read it."""
    parts = PurePosixPath(file).suffixes[-2:]
    return _KINDS.get(parts[0] if parts and parts[-1] in _CODECS else parts[-1] if parts else "")


def codec_of(file: str) -> str | None:
    return _CODECS.get(PurePosixPath(file).suffix)


def _shards_of(file: str) -> list[Shard]:
    """The shards of a file. Raises CascadeError for a .parquet that is none."""
    kind, path = _kind(file), Path(file)
    if "://" in file or kind == "json" or codec_of(file):
        return [Shard(file)]
    if kind == "jsonl":
        size = path.stat().st_size
        bounds = [*range(0, size, SHARD_BYTES), size]
        return [Shard(file, begin, end) for begin, end in pairwise(bounds)]
    with _parquet_file(file, file) as opened:
        sizes = [opened.metadata.row_group(i).total_byte_size for i in range(opened.metadata.num_row_groups)]
    starts, total = [0], 0
    for group, size in enumerate(sizes):
        if total and total + size > SHARD_BYTES:
            starts, total = [*starts, group], 0
        total += size
    return [Shard(file, begin, end) for begin, end in pairwise([*starts, len(sizes)])]


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


def _open(shard: Shard) -> IO[bytes]:
    """The file's bytes, decompressed, from where the shard begins."""
    file: IO[bytes] = fsspec.open(shard.file, "rb").open()
    codec = codec_of(shard.file)
    if codec in _OPENERS:
        return cast(IO[bytes], _OPENERS[codec](file))
    if codec is not None:
        # Read by little: what precedes a damaged place is given in whole buffers.
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec), 1 << 16)  # type: ignore
    if shard.begin:  # A line that begins before the shard belongs to the one before.
        file.seek(shard.begin - 1)
        file.readline()
    return file


def _jsonl(shard: Shard) -> Iterator[Raw]:
    number = 0
    try:
        with _open(shard) as file:
            end = shard.end if shard.end is not None and codec_of(shard.file) is None else None
            # Before the lines are read: then the position is that of the next line.
            position = file.tell() if end is not None else 0
            for line in file:
                if end is not None and position >= end:
                    return
                position += len(line)
                number += 1
                text = line.decode("utf-8", "surrogateescape")
                if number == 1 and not shard.begin:
                    text = text.removeprefix("\ufeff")
                if text.isspace():
                    continue
                yield _parsed(text, shard, number)
    except _NETWORK:
        raise
    except _DAMAGED as error:
        yield UnreadableRow("unreadable", shard, number + 1, f"the rest of the file cannot be read ({error})")


def _parsed(text: str, shard: Shard, number: int) -> Raw:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableRow("not_json", shard, number, str(error))
    return row if isinstance(row, dict) else UnreadableRow("not_json", shard, number, "not a JSON object")


def _json(shard: Shard) -> Iterator[Raw]:
    """A .json file: an array of rows, a single row over several lines, or JSON Lines."""
    name = PurePosixPath(shard.file).name
    with io.TextIOWrapper(_open(shard), encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline()
        if not first.lstrip().startswith("["):
            try:
                json.loads(first)
            except ValueError:
                pass
            else:
                yield from _jsonl(shard)
                return
        try:
            content = json.loads(first + file.read())
        except ValueError as error:
            yield RowError("not_json", f"{name}: {error}")
            return
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        yield row if isinstance(row, dict) else RowError("not_json", f"{name}: row {number} is not a JSON object")


@contextmanager
def _parquet_file(source: Any, name: str) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(source)
    except _NETWORK:
        raise
    except (OSError, ValueError) as error:
        raise CascadeError(f"{name}: not a Parquet file ({error})") from None
    with file:
        yield file


def _parquet(shard: Shard) -> Iterator[Raw]:
    with fsspec.open(shard.file, "rb") as stream, _parquet_file(stream, shard.file) as file:
        groups = range(shard.begin, file.metadata.num_row_groups if shard.end is None else shard.end)
        name = PurePosixPath(shard.file).name
        for group in groups:
            try:
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, row_groups=[group]):
                    yield from _of_batch(batch)
            except _NETWORK:
                raise
            except _DAMAGED as error:
                yield RowError("unreadable", f"{name}: row group {group} cannot be read further ({error})")


def _of_batch(batch: pa.RecordBatch) -> Iterator[Raw]:
    kinds = {column.name: column.type for column in batch.schema}
    for row in batch.to_pylist():
        try:
            yield {key: _of_column(v, kinds[key]) for key, v in row.items() if v is not None}
        except RowError as error:
            yield error


@cache
def _lines_before(file: str, begin: int) -> int:
    """Lines of the file that begin before a byte: the line numbers of a shard follow them."""
    if not begin:
        return 0
    with open(file, "rb") as opened:
        count, left = 0, begin - 1
        while left > 0 and (block := opened.read(min(left, 1 << 22))):
            count += block.count(b"\n")
            left -= len(block)
    return count + 1


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


def _dataset_shards(source: Source, name: str, root: Path) -> list[Shard]:
    """JSON and Parquet files are read like those of a `path`: `datasets` would convert every value to the type it
    infers for the column (texts to dates, integers to floats), and fail at the first value that does not fit."""
    try:
        paths, _ = _builder(source, root)
        readable = bool(paths) and all(_kind(path) is not None for path in paths)
    except (OSError, ValueError, TransportError) as error:
        raise CascadeError(
            f"curation.sources.{name}.dataset: cannot open {source.dataset} "
            f"(subset {source.subset}, split {source.split}): {' '.join(str(error).split())[:600]}"
        ) from None
    return [shard for path in paths for shard in _shards_of(path)] if readable else [Shard()]


def _builder(source: Source, root: Path) -> tuple[list[str], Any]:
    """The files of the source's split and the builder of `datasets`; no files where the builder does not name them."""
    import datasets  # takes over a second, and most recipes have no such source

    local = root / str(source.dataset)
    builder = datasets.load_dataset_builder(str(local) if local.is_dir() else str(source.dataset), source.subset)
    by_split = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
    if by_split and source.split not in by_split:
        raise ValueError(f"it has the splits {', '.join(by_split)}")
    return by_split.get(source.split, []), builder


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
