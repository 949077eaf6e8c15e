"""Packing of SFT conversations into sequences: best-fit decreasing (Johnson 1974), window by window.

Accepted conversations are spooled to an Arrow file. Windows of about 64 sequences are then filled with randomly
drawn pieces of that file, so that every window mixes all sources and only one window is in memory.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cascade.chat import Conversation
from cascade.policy.base import Sequence

WINDOW_SEQUENCES = 64
WINDOW_TOKENS = 1 << 18
"""A window has WINDOW_SEQUENCES full sequences or this many tokens, whichever is more."""
PIECE_ROWS = 32
PIECE_TOKENS = 1 << 20
"""A piece of the spool ends at so many conversations or tokens, whichever comes first."""

_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("trained", pa.list_(pa.bool_()))])
_Document = tuple[NDArray[np.int32], NDArray[np.bool_]]


class Spool:
    """Tokenised conversations on disk, written during curation and read for packing."""

    def __init__(self, path: Path):
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, _SCHEMA)
        self._rows: list[dict[str, Any]] = []
        self._tokens = 0

    def add(self, conversation: Conversation) -> None:
        self._rows.append({"input_ids": conversation.token_ids, "trained": conversation.trained})
        self._tokens += len(conversation.token_ids)
        if len(self._rows) == PIECE_ROWS or self._tokens >= PIECE_TOKENS:
            self._flush()

    def pieces(self, rng: Random) -> Iterator[list[_Document]]:
        """The conversations in pieces, in random order. Closes the spool."""
        self._flush()
        self._writer.close()
        self._file.close()
        with pa.memory_map(str(self._path)) as file:
            reader = pa.ipc.open_file(file)
            for index in rng.sample(range(reader.num_record_batches), reader.num_record_batches):
                ids, trained = reader.get_batch(index).columns
                yield [
                    (a.values.to_numpy(), b.values.to_numpy(zero_copy_only=False))
                    for a, b in zip(ids, trained, strict=True)
                ]

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=_SCHEMA))
        self._rows, self._tokens = [], 0


def pack(pieces: Iterator[list[_Document]], length: int, rng: Random) -> Iterator[Sequence]:
    """Sequences of at most `length` tokens. No conversation is split, and none may be longer than `length`.

    The documents of a window's emptiest sequence are packed again with the next window.
    """
    limit = max(WINDOW_SEQUENCES * length, WINDOW_TOKENS)
    window: list[_Document] = []
    tokens = 0
    for piece in pieces:
        window += piece
        tokens += sum(len(ids) for ids, _ in piece)
        if tokens >= limit:
            *bins, window = _fill(window, length, rng)
            tokens = sum(len(ids) for ids, _ in window)
            yield from _sequences(bins, rng)
    yield from _sequences(_fill(window, length, rng), rng)


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


def _fill(window: list[_Document], length: int, rng: Random) -> list[list[_Document]]:
    """Bins of documents, the emptiest bin last."""
    window = rng.sample(window, len(window))
    bins = [[window[i] for i in indices] for indices in best_fit([len(ids) for ids, _ in window], length)]
    return sorted(bins, key=lambda documents: -sum(len(ids) for ids, _ in documents))


def _sequences(bins: list[list[_Document]], rng: Random) -> Iterator[Sequence]:
    for documents in rng.sample(bins, len(bins)):
        shuffled = rng.sample(documents, len(documents))
        yield Sequence(
            np.concatenate([ids for ids, _ in shuffled]).tolist(),
            np.concatenate([trained for _, trained in shuffled]).tolist(),
            tuple(len(ids) for ids, _ in shuffled),
        )
