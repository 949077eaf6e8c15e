"""Exact and near-duplicate removal: of equal rows the first is kept.

Near-duplicates are found by MinHash (Broder 1997) over shingles of three words, in locality-sensitive bands.
Different numbers or operators make different tasks, even with the same words, so rows are compared only where their
quantities are equal, in order. Only the hashes of rows are stored, on disk.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import floor, log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.curation.index import KeyIndex
from cascade.curation.text import Hashes, hash_words, mix, normalise, quantities
from cascade.errors import RowError
from cascade.utils.seeds import derive_seed

SHINGLE = 3
"""Words in a shingle."""
HASHES = 128
"""MinHash values a row; the standard error of a similarity of 0.9 is then 0.027."""
BANDS = 8
RECALL = 0.95
"""Share of pairs at exactly the threshold that meet in at least one band."""
BLOCK = 512
"""Rows compared with each other at once: bounds the pairs in memory."""

Signatures = NDArray[np.uint32]


def rows_a_band(threshold: float) -> int:
    """The longest band with which pairs at the threshold still meet with probability RECALL."""
    if threshold >= 1:
        return HASHES // BANDS
    return max(1, min(HASHES // BANDS, floor(log(1 - (1 - RECALL) ** (1 / BANDS)) / log(threshold))))


class Deduplicator:
    """Remembers the hashes of kept rows, across calls."""

    def __init__(self, threshold: float, directory: Path):
        directory.mkdir(parents=True)
        self._threshold = threshold
        self._band = rows_a_band(threshold)
        self._exact = KeyIndex(directory / "exact")
        self._near = KeyIndex(directory / "near")
        self._path = directory / "signatures"
        self._path.touch()
        self._count = 0

    def check(self, texts: Sequence[str]) -> list[RowError | None]:
        """For each text an error (`exact_duplicate`, `near_duplicate`) or None, which keeps it."""
        return [error for at in range(0, len(texts), BLOCK) for error in self._block(texts[at : at + BLOCK])]

    def _block(self, texts: Sequence[str]) -> list[RowError | None]:
        plain = [normalise(text) for text in texts]
        exact = np.array([_digest(text) for text in plain], np.uint64)
        errors: list[RowError | None] = [None] * len(plain)
        is_first = np.zeros(len(plain), bool)
        is_first[np.unique(exact, return_index=True)[1]] = True
        is_first[self._exact.find(exact)[0]] = False
        for row in np.flatnonzero(~is_first):
            errors[row] = RowError("exact_duplicate", "the text of an earlier row, but for case and spacing")

        rows = np.flatnonzero(is_first)
        signatures = minhash([plain[row] for row in rows])
        keys = self._keys(signatures, np.array([quantities(plain[row]) for row in rows], np.uint64))
        compact = signatures.astype(np.uint8)
        similarity = self._to_earlier(compact, keys)
        for later, earlier, value in self._among(compact, keys):
            if similarity[earlier] < self._threshold:
                similarity[later] = max(similarity[later], value)
        for row, value in zip(rows, similarity, strict=True):
            if value >= self._threshold:
                errors[row] = RowError("near_duplicate", f"Jaccard similarity of about {value:.2f} with an earlier row")
        self._remember(exact[rows], compact, keys, similarity < self._threshold)
        return errors

    def _keys(self, signatures: Signatures, quantity: Hashes) -> Hashes:
        """[rows, BANDS]: equal where a band of MinHash values and the quantities are."""
        keys = np.empty((len(signatures), BANDS), np.uint64)
        for band in range(BANDS):
            key = quantity + np.uint64(band << 32)
            for value in signatures[:, band * self._band : (band + 1) * self._band].T:
                key = mix(key + value)
            keys[:, band] = key
        return keys

    def _to_earlier(self, compact: NDArray[np.uint8], keys: Hashes) -> NDArray[np.float64]:
        """Highest similarity of each row to one kept in an earlier block."""
        best = np.zeros(len(compact))
        positions, earlier = self._near.find(keys.ravel())
        if len(positions):
            pairs = np.unique(np.stack([positions // BANDS, earlier]), axis=1)
            stored_signatures = np.memmap(self._path, np.uint8, "r", shape=(self._count, HASHES))
            np.maximum.at(best, pairs[0], _similarity(compact[pairs[0]], stored_signatures[pairs[1]]))
        return best

    def _among(self, compact: NDArray[np.uint8], keys: Hashes) -> list[tuple[int, int, float]]:
        """Near-duplicates within the block as (later, earlier, similarity), in order."""
        pairs: set[tuple[int, int]] = set()
        for column in keys.T:
            order = np.argsort(column, kind="stable")
            starts = np.flatnonzero(np.diff(column[order], prepend=column[order[:1]] - np.uint64(1)))
            for group in np.split(order, starts[1:]):
                for place in range(1, len(group)):
                    pairs.update((int(group[place]), int(other)) for other in group[:place])
        if not pairs:
            return []
        later, earlier = np.array(sorted(pairs)).T
        values = _similarity(compact[later], compact[earlier])
        near = values >= self._threshold
        return list(zip(later[near].tolist(), earlier[near].tolist(), values[near].tolist(), strict=True))

    def _remember(self, exact: Hashes, compact: NDArray[np.uint8], keys: Hashes, mask: NDArray[np.bool_]) -> None:
        numbers = self._count + np.arange(int(mask.sum()))
        # A near-duplicate's text is known too: its exact copies are then counted as what they are.
        self._exact.add(exact, np.zeros(len(exact), np.int64))
        self._near.add(keys[mask].ravel(), np.repeat(numbers, BANDS))
        with open(self._path, "ab") as file:
            file.write(compact[mask].tobytes())
        self._count += len(numbers)


def minhash(texts: Sequence[str]) -> Signatures:
    """[texts, HASHES] MinHash values of normalised texts; equal share ≈ Jaccard similarity of their shingles."""
    shingles, rows = hash_words(texts, at_least=SHINGLE).ngrams(SHINGLE)
    signatures = np.empty((len(texts), HASHES), np.uint32)
    starts = np.searchsorted(rows, np.arange(len(texts)))
    for column, salt in enumerate(_SALTS if len(texts) else ()):
        values = ((shingles ^ salt) * _MULTIPLIER) >> np.uint64(32)
        signatures[:, column] = np.minimum.reduceat(values, starts)
    return signatures


def _similarity(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    # Only the low byte of each value is kept, so 1 in 256 agrees by chance (b-bit minwise hashing, Li & König 2010).
    chance = 1 / 256
    return ((one == other).mean(axis=1) - chance) / (1 - chance)


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
_SALTS = [np.uint64(derive_seed("minhash", column)) for column in range(HASHES)]
