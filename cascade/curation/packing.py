"""Packing of SFT conversations into sequences: best-fit decreasing (Johnson 1974), window by window.

Which conversation goes where is decided from the lengths alone (`plan`): windows of about 64 sequences are filled with
randomly drawn runs of neighbouring conversations, so that every window mixes all sources. Then each file is written by
itself (`write_part`), in any process.
"""

import os
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cascade.curation import store
from cascade.curation.encoding import mask
from cascade.curation.pieces import TokenReader, lists

WINDOW_SEQUENCES = 64
WINDOW_TOKENS = 1 << 18
"""A window has WINDOW_SEQUENCES full sequences or this many tokens, whichever is more."""
RUN_CONVERSATIONS = 32
RUN_TOKENS = 1 << 20
"""A run ends at so many conversations or tokens, whichever comes first."""
_BLOCK = 1 << 16


def plan(lengths: NDArray[np.int32], length: int, rng: Random) -> Iterator[list[int]]:
    """For each sequence of at most `length` tokens the numbers of its conversations, in order; `lengths` are those of
    all conversations. No conversation is split, and none may be longer than `length`.

    The conversations of a window's emptiest sequence are packed again with the next window.
    """
    limit = max(WINDOW_SEQUENCES * length, WINDOW_TOKENS)
    window: list[int] = []
    tokens = 0
    runs = list(_runs(lengths))
    for run in rng.sample(runs, len(runs)):
        window += run
        tokens += int(lengths[run.start : run.stop].sum())
        if tokens >= limit:
            *bins, window = _fill(window, lengths, length, rng)
            tokens = int(lengths[window].sum())
            yield from _sequences(bins, rng)
    yield from _sequences(_fill(window, lengths, length, rng), rng)


def best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Indices into `lengths` by bin: longest first, each into the fullest bin with enough room."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(room, (lengths[position], -1))
        if at == len(room):
            left, index = capacity, len(bins)
            bins.append([])
        else:
            left, index = room.pop(at)
        bins[index].append(position)
        insort(room, (left - lengths[position], index))
    return bins


def save_plan(path: Path, folders: list[str], counts: Sequence[int], places: NDArray[np.uint32]) -> None:
    """The plan of a file: `counts` are the conversations of each sequence, `places` [conversations, 2] the number of
    the piece in `folders` and of the example there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(temporary, folders=np.array(folders), counts=np.array(counts), places=places)
    os.replace(temporary, path)


def write_part(plan_file: Path, root: Path, out: Path) -> None:
    """Write the planned sequences as Parquet; `root` is what the plan's folders are relative to. The same plan gives
    the same bytes."""
    with np.load(plan_file) as content:
        folders, counts, places = content["folders"].tolist(), content["counts"].tolist(), content["places"]
    readers: dict[int, TokenReader] = {}
    used: set[int] = set()
    sequences: list[list[tuple[NDArray[np.int32], NDArray[np.int32]]]] = []
    size = at = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with pq.ParquetWriter(temporary, store.SEQUENCES, compression="zstd") as writer:
        for count in counts:
            parts = []
            for piece, example in places[at : at + count].tolist():
                if piece not in readers:
                    readers[piece] = TokenReader(root / folders[piece])
                parts.append(readers[piece][example])
                used.add(piece)
            at += count
            sequences.append(parts)
            size += 2 * sum(len(ids) for ids, _ in parts) + count
            if len(sequences) >= store.GROUP_ROWS or size >= store.GROUP_SIZE:
                _write(writer, sequences)
                sequences, size = [], 0
                for piece in used:
                    readers[piece].release()
                used.clear()
        if sequences:
            _write(writer, sequences)
    os.replace(temporary, out)


def _write(writer: pq.ParquetWriter, sequences: list[list[tuple[NDArray[np.int32], NDArray[np.int32]]]]) -> None:
    documents = [[len(ids) for ids, _ in parts] for parts in sequences]
    starts = pa.array(np.cumsum([0, *map(sum, documents)]), pa.int32())
    trained = mask(np.concatenate([runs for parts in sequences for _, runs in parts]))
    columns = [
        pa.ListArray.from_arrays(starts, np.concatenate([ids for parts in sequences for ids, _ in parts])),
        pa.ListArray.from_arrays(starts, trained),
        lists(documents, pa.int32()),
    ]
    writer.write_table(pa.Table.from_arrays(columns, schema=store.SEQUENCES))


def _runs(lengths: NDArray[np.int32]) -> Iterator[range]:
    begin, tokens = 0, 0
    for start in range(0, len(lengths), _BLOCK):
        for at, length in enumerate(lengths[start : start + _BLOCK].tolist(), start):
            tokens += length
            if at + 1 - begin == RUN_CONVERSATIONS or tokens >= RUN_TOKENS:
                yield range(begin, at + 1)
                begin, tokens = at + 1, 0
    if begin < len(lengths):
        yield range(begin, len(lengths))


def _fill(window: list[int], lengths: NDArray[np.int32], length: int, rng: Random) -> list[list[int]]:
    """Bins of conversations, the emptiest bin last."""
    window = rng.sample(window, len(window))
    sizes = lengths[window].tolist()
    bins = sorted(best_fit(sizes, length), key=lambda places: -sum(sizes[at] for at in places))
    return [[window[at] for at in places] for places in bins]


def _sequences(bins: list[list[int]], rng: Random) -> Iterator[list[int]]:
    for numbers in rng.sample(bins, len(bins)):
        yield rng.sample(numbers, len(numbers))
