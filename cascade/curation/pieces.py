"""A piece: the rows of one shard of a source for one use, after the steps, in a folder.

A piece does not depend on other pieces, so that any process makes it, and it appears whole or not at all. What the
selection needs of every row lies in small arrays; text and tokens are read again only where they are written.
"""

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cascade.curation.dedupe import BANDS, Fingerprints
from cascade.curation.rows import Use
from cascade.curation.sources import Raw, Shard
from cascade.curation.steps import Judged
from cascade.curation.store import writable

BATCH_ROWS = 512
BATCH_SIZE = 1 << 22
"""Characters of a batch: it ends at so many rows or characters, whichever comes first."""

REJECTS = 10_000
"""Rejected rows of a source that are kept for each use and reason; all are counted."""

CONTENT = pa.schema(
    [
        ("row", pa.uint32()),
        ("id", pa.string()),
        ("environment", pa.string()),
        ("level", pa.int32()),
        ("content", pa.large_string()),
        ("message", pa.string()),
    ]
)
COLUMNS = {
    "steps": np.uint8,
    "reasons": np.uint16,
    "lengths": np.int32,
    "ranks": np.uint64,
    "slots": np.uint32,
    "example-rows": np.uint32,
    "example-lengths": np.int32,
    "example-trained": np.int32,
}
"""Arrays of a piece. Of every row: number of the step that rejects it, reason, tokens, rank by which rows are drawn.
The rows that reached the step of duplicates (`slots`). Of every example: its row, its tokens, and
how many of them are trained on."""
TOKENS = pa.schema([("input_ids", pa.list_(pa.int32())), ("runs", pa.list_(pa.int32()))])
"""Of every example its tokens and the lengths of what is not trained on and what is, in turns."""


@dataclass(frozen=True)
class Piece:
    """What is to be read: rows `skip` on of a shard, or of a generator at a `level`, until `wanted` new rows passed the
    steps (all where it is None)."""

    use: Use
    source: str
    folder: str
    level: int | None = None
    shard: Shard | None = None
    skip: int = 0
    wanted: int | None = None
    limit: int | None = None
    """Generators: rows that it may draw in all."""

    def as_job(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_job(cls, job: dict[str, Any]) -> "Piece":
        shard = job.pop("shard")
        return cls(**job, shard=Shard(**shard) if shard else None)


class PieceWriter:
    """Collects judged batches and writes them under a temporary name."""

    def __init__(self, folder: Path, seed: int, counts_new: bool):
        self._final = folder
        self._folder = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._seed = seed
        self._content = pa.ipc.new_file(str(self._folder / "content.arrow"), CONTENT, options=_COMPRESSED)
        self._tokens: pa.ipc.RecordBatchFileWriter | None = None
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._names: dict[str, int] = {"": 0}
        self._kept_rejects: dict[str, int] = {}
        self._prints: list[Fingerprints] = []
        self._batches = [0]
        self._met: set[int] | None = set() if counts_new else None
        self.new = 0
        """Rows that passed and look like no row before, so far (where `counts_new`)."""
        self.rows = 0

    def add(self, judged: Sequence[Judged], reached: Sequence[int], prints: Fingerprints) -> None:
        begin = self.rows
        self.rows += len(judged)
        content: list[dict[str, Any]] = []
        codes = [row.error.code if row.error is not None else "" for row in judged]
        self._append("steps", [row.step for row in judged])
        self._append("reasons", [self._names.setdefault(code, len(self._names)) for code in codes])
        self._append("lengths", [row.candidate.tokens if row.candidate is not None else 0 for row in judged])
        self._append(
            "ranks", [rank(self._seed, row.candidate.id) if row.candidate is not None else 0 for row in judged]
        )
        self._append("slots", [begin + at for at in reached])
        reached_set = set(reached)
        for at, row in enumerate(judged):
            if at not in reached_set:
                self._kept_rejects[codes[at]] = count = self._kept_rejects.get(codes[at], 0) + 1
                if count > REJECTS:
                    continue
            content.append(_content(begin + at, row))
        self._content.write_batch(pa.RecordBatch.from_pylist(content, CONTENT))
        self._prints.append(prints)
        if self._met is not None:
            for at, exact, keys in zip(reached, prints.exact.tolist(), prints.keys.tolist(), strict=True):
                known = exact in self._met or not self._met.isdisjoint(keys)
                self._met.update((exact, *keys))
                self.new += judged[at].error is None and not known
        self._add_tokens(begin, judged)

    def finish(self, exhausted: bool) -> None:
        """Write what was collected, and move the folder to its place."""
        self._content.close()
        if self._tokens is not None:
            self._tokens.close()
        save = self._save
        for name, parts in self._columns.items():
            save(name, _joined(parts, np.empty(0, COLUMNS[name])))
        save("batches", np.array(self._batches, np.int64))
        exact = _joined([prints.exact for prints in self._prints], np.empty(0, np.uint64))
        keys = _joined([prints.keys for prints in self._prints], np.empty((0, BANDS), np.uint64))
        slots = np.arange(len(exact), dtype=np.uint32)
        for name, values, numbers in (("exact", exact, slots), ("near", keys.ravel(), np.repeat(slots, BANDS))):
            order = np.argsort(values, kind="stable")
            save(f"{name}-keys", values[order])
            save(f"{name}-slots", numbers[order])
        signatures = [prints.signatures for prints in self._prints]
        save("signatures", _joined(signatures, np.empty((0, 0), np.uint8)))
        facts = {"rows": self.rows, "exhausted": exhausted, "reasons": list(self._names)}
        (self._folder / "piece.json").write_text(json.dumps(facts))
        shutil.rmtree(self._final, ignore_errors=True)
        os.replace(self._folder, self._final)

    def _append(self, name: str, values: list[int]) -> None:
        self._columns[name].append(np.array(values, COLUMNS[name]))

    def _save(self, name: str, values: NDArray[Any]) -> None:
        np.save(self._folder / f"{name}.npy", values)

    def _add_tokens(self, begin: int, judged: Sequence[Judged]) -> None:
        examples = [
            (begin + at, example)
            for at, row in enumerate(judged)
            if row.error is None and row.candidate is not None
            for example in row.candidate.examples
        ]
        if not examples:
            return
        if self._tokens is None:
            self._tokens = pa.ipc.new_file(str(self._folder / "tokens.arrow"), TOKENS)
        self._append("example-rows", [row for row, _ in examples])
        self._append("example-lengths", [len(example.token_ids) for _, example in examples])
        self._append("example-trained", [sum(example.runs[1::2].tolist()) for _, example in examples])
        self._batches.append(self._batches[-1] + len(examples))
        columns = [
            lists([example.token_ids for _, example in examples], pa.int32()),
            lists([example.runs for _, example in examples], pa.int32()),
        ]
        self._tokens.write_batch(pa.RecordBatch.from_arrays(columns, schema=TOKENS))


def rank(seed: int, row_id: str) -> int:
    """By which rows are drawn: the lowest first, whatever their order."""
    return int.from_bytes(blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest(), "big")


class MadePiece:
    """A finished piece, read lazily."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._facts = json.loads((folder / "piece.json").read_text())
        self.rows: int = self._facts["rows"]
        self.exhausted: bool = self._facts["exhausted"]
        self.reasons: list[str] = self._facts["reasons"]

    @staticmethod
    def is_made(folder: Path) -> bool:
        return (folder / "piece.json").is_file()

    def array(self, name: str, mapped: bool = False) -> NDArray[Any]:
        values: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r" if mapped else None)
        return values

    def content(self, rows: NDArray[Any]) -> Iterator[dict[str, Any]]:
        """The values of CONTENT of some rows, in order."""
        if not len(rows):
            return
        with pa.memory_map(str(self.folder / "content.arrow")) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                wanted = np.isin(batch.column("row").to_numpy(), rows)
                if wanted.any():
                    yield from batch.filter(pa.array(wanted)).to_pylist()


class TokenReader:
    """The examples of a piece by number, without reading the others."""

    def __init__(self, folder: Path):
        self._file = pa.memory_map(str(folder / "tokens.arrow"))
        self._reader = pa.ipc.open_file(self._file)
        self._starts: list[int] = np.load(folder / "batches.npy").tolist()
        self._batches: dict[int, tuple[NDArray[Any], list[int], NDArray[Any], list[int]]] = {}

    def __getitem__(self, example: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens and runs."""
        index = bisect_right(self._starts, example) - 1
        if index not in self._batches:
            ids, runs = self._reader.get_batch(index).columns
            found = (ids.values.to_numpy(), ids.offsets.to_pylist(), runs.values.to_numpy(), runs.offsets.to_pylist())
            self._batches[index] = found
        ids, starts, runs, run_starts = self._batches[index]
        at = example - self._starts[index]
        return ids[starts[at] : starts[at + 1]], runs[run_starts[at] : run_starts[at + 1]]

    @cached_property
    def count(self) -> int:
        return self._starts[-1]


def batches(raws: Iterator[Raw], rows: int | None = None) -> Iterator[list[Raw]]:
    """Rows in batches of bounded size, each of at most `rows` of them."""
    while True:
        batch: list[Raw] = []
        size = 0
        for raw in islice(raws, min(BATCH_ROWS, rows) if rows is not None else BATCH_ROWS):
            batch.append(raw)
            size += _size(raw)
            if size >= BATCH_SIZE:
                break
        if not batch:
            return
        yield batch


def lists(values: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
    """A column of lists from arrays or lists of numbers."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.concatenate([np.asarray(value) for value in values]) if values else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, kind))


def _content(number: int, row: Judged) -> dict[str, Any]:
    candidate = row.candidate
    return {
        "row": number,
        "id": candidate.id if candidate is not None else None,
        "environment": candidate.environment if candidate is not None else None,
        "level": candidate.level if candidate is not None else None,
        "content": writable(row.content),
        "message": writable(str(row.error)) if row.error is not None else None,
    }


def _size(raw: Raw) -> int:
    if not isinstance(raw, dict):
        return 0
    messages = raw.get("messages")
    texts = [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    return sum(len(value) for value in (*raw.values(), *texts) if isinstance(value, str))


def _joined(parts: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    parts = [part for part in parts if len(part)]
    return np.concatenate(parts) if parts else empty


_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
