"""A multimap from 64-bit keys to row numbers, stored on disk as it grows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.curation.text import Hashes

Numbers = NDArray[np.int64]
_Run = tuple[Hashes, NDArray[np.uint32]]

IN_MEMORY = 1 << 18
"""Largest number of entries of a sorted run that is kept in memory (12 bytes per entry)."""
LARGEST = 1 << 22
"""Largest number of entries of a merged run; with more entries a look-up searches several runs."""
MOST_MATCHES = 32
"""Largest number of rows returned per key and run, so that a phrase common to all rows does not make look-ups
quadratic."""


class KeyIndex:
    """Sorted runs, merged as they grow; large ones are memory-mapped files in `directory`."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True)
        self._directory = directory
        self._runs: list[_Run] = []
        self._files = 0

    def add(self, keys: Hashes, rows: Numbers) -> None:
        if not len(keys):
            return
        run = _sorted(keys, rows.astype(np.uint32))
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            if len(self._runs[-1][0]) + len(run[0]) > LARGEST:
                break
            last = self._runs.pop()
            run = _sorted(np.concatenate([last[0], run[0]]), np.concatenate([last[1], run[1]]))
            self._discard(last)
        self._runs.append(self._mapped(run) if len(run[0]) > IN_MEMORY else run)

    def find(self, keys: Hashes) -> tuple[Numbers, Numbers]:
        """Every match as (position in `keys`, row)."""
        positions, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for run_keys, run_rows in self._runs:
            first = np.searchsorted(run_keys, keys, "left")
            matches = np.minimum(np.searchsorted(run_keys, keys, "right") - first, MOST_MATCHES)
            hits = np.flatnonzero(matches)
            counts = matches[hits]
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            positions.append(np.repeat(hits, counts))
            rows.append(run_rows[np.repeat(first[hits], counts) + within].astype(np.int64))
        return np.concatenate(positions), np.concatenate(rows)

    def _mapped(self, run: _Run) -> _Run:
        arrays = []
        for array in run:
            path = self._directory / f"{self._files}.npy"
            self._files += 1
            np.save(path, array)
            arrays.append(np.load(path, mmap_mode="r"))
        return arrays[0], arrays[1]

    def _discard(self, run: _Run) -> None:
        for array in run:
            if isinstance(array, np.memmap):
                Path(str(array.filename)).unlink()


def _sorted(keys: Hashes, rows: NDArray[np.uint32]) -> _Run:
    order = np.argsort(keys, kind="stable")
    return keys[order], rows[order]
