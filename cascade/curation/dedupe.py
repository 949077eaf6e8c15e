"""Exact and near-duplicate removal: of equal rows the first is kept.

Near-duplicates are found by MinHash (Broder 1997, rensa's implementation) over shingles of three words, in
locality-sensitive bands. Different numbers, operators or tools make different tasks, even with the same words, so rows
are compared only where these are equal, in order.

In three steps, so that no process holds all rows: each shard writes the fingerprints of its rows, sorted by key
(`fingerprints`); each range of keys is searched for pairs (`find_pairs`); the pairs are resolved in the order of the
rows (`Resolver`), because a row is compared with kept rows alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import chain
from math import floor, log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from cascade.curation.text import Hashes, Words, blocks, mix, normalise, read_words
from cascade.errors import RowError
from cascade.utils.seeds import derive_seed

SHINGLE = 3
"""Words in a shingle."""
HASHES = 128
"""MinHash values a row; the standard error of a similarity of 0.9 is then 0.027."""
BANDS = 8
RECALL = 0.95
"""Share of pairs at exactly the threshold that meet in at least one band."""
MOST_MATCHES = 32
"""A row is compared with so many rows of the same key, the first ones, so that a phrase common to all rows does not
make the search quadratic."""

_WORDS_AT_ONCE = 1 << 13
"""Words whose shingles are hashed at once: they stay in the processor's cache."""

Signatures = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Fingerprints:
    """Of n rows: by what equal and similar rows are found."""

    exact: Hashes
    """[n], of the normalised text and the tools."""
    keys: Hashes
    """[n, BANDS], equal where a band of MinHash values and the quantities are."""
    signatures: Signatures
    """[n, HASHES], the low bytes of the MinHash values."""


@dataclass(frozen=True)
class Pairs:
    """Similar rows: `later[i]` is after `earlier[i]`, and `similarity[i]` at least the threshold."""

    later: Numbers
    earlier: Numbers
    similarity: NDArray[np.float64]


def rows_a_band(threshold: float) -> int:
    """The longest band with which pairs at the threshold still meet with probability RECALL."""
    if threshold >= 1:
        return HASHES // BANDS
    return max(1, min(HASHES // BANDS, floor(log(1 - (1 - RECALL) ** (1 / BANDS)) / log(threshold))))


def fingerprints(
    threshold: float, plain: Sequence[str], found: Words, quantities: Hashes, tools: Sequence[str]
) -> Fingerprints:
    """Fingerprints of normalised texts (`plain`); `found` and `quantities` are those of `read_words`, `tools` the tools
    of each as text."""
    exact = np.array([_digest(f"{text}\0{tool}") for text, tool in zip(plain, tools, strict=True)], np.uint64)
    tasks = quantities ^ np.array([_digest(tool) if tool else 0 for tool in tools], np.uint64)
    values = minhash(found.filled(SHINGLE))
    band = rows_a_band(threshold)
    keys = tasks[:, None] + (np.arange(BANDS, dtype=np.uint64) << np.uint64(32))
    for place in range(band):
        keys = mix(keys + values[:, place : BANDS * band : band].astype(np.uint64))
    return Fingerprints(exact, keys, values.astype(np.uint8))


def minhash(hashed: Words) -> NDArray[np.uint32]:
    """[texts, HASHES] MinHash values; equal share ≈ Jaccard similarity of the texts' shingles."""
    values = np.empty((len(hashed.lengths), HASHES), np.uint32)
    for begin, end in blocks(hashed.lengths.tolist(), _WORDS_AT_ONCE):
        shingles, rows = hashed.some(begin, end).ngrams(SHINGLE)
        starts = np.searchsorted(rows, np.arange(begin, end + 1)).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, starts, HASHES, _SEED).to_rows()
        flat = np.fromiter(chain.from_iterable(matrix), np.uint32, (end - begin) * HASHES)
        values[begin:end] = flat.reshape(-1, HASHES)
    return values


def find_equal(keys: Hashes, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Rows whose key another row has, and for each the first row with this key (also for the first row itself)."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    start = _starts(keys)
    sizes = np.bincount(start, minlength=len(keys))
    several = sizes[start] > 1
    return rows[several], rows[start[several]]


def find_pairs(keys: Hashes, rows: Numbers, signatures: Callable[[Numbers], Signatures], threshold: float) -> Pairs:
    """Similar rows among those with equal keys. `signatures` gives those of some rows, [rows, HASHES]."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    start = _starts(keys)
    place = np.arange(len(keys)) - start
    found = [np.empty((2, 0), np.int64)]
    for offset in range(MOST_MATCHES):
        at = np.flatnonzero(place > offset)
        if not len(at):
            break
        found.append(np.stack([rows[at], rows[start[at] + offset]]))
    later, earlier = np.unique(np.concatenate(found, axis=1), axis=1)
    similarity = np.concatenate(
        [np.empty(0), *(_similarity(signatures(a), signatures(b)) for a, b in _blocks(later, earlier))]
    )
    near = similarity >= threshold
    return Pairs(later[near], earlier[near], similarity[near])


class Resolver:
    """Decides in the order of the rows which are duplicates. `equal` as of `find_equal`, `pairs` of all keys."""

    def __init__(self, equal: tuple[Numbers, Numbers], pairs: Pairs):
        order = np.argsort(equal[0], kind="stable")
        self._copies, self._first = equal[0][order], equal[1][order]
        # A pair that meets in several bands is found several times.
        order = np.lexsort((pairs.earlier, pairs.later))
        self._later, self._earlier = pairs.later[order], pairs.earlier[order]
        self._value = pairs.similarity[order]
        self._met: dict[int, int] = {}
        self._dropped: set[int] = set()

    def check(self, begin: int, end: int) -> dict[int, RowError]:
        """The errors of rows `begin` to `end`; segments are checked in order. Rows count as met, until `forget`."""
        errors: dict[int, RowError] = {}
        near = iter(range(*np.searchsorted(self._later, [begin, end]).tolist()))
        candidates: dict[int, list[tuple[int, float]]] = {}
        for at in near:
            entry = (int(self._earlier[at]), float(self._value[at]))
            candidates.setdefault(int(self._later[at]), []).append(entry)
        copies = range(*np.searchsorted(self._copies, [begin, end]).tolist())
        groups = {int(self._copies[at]): int(self._first[at]) for at in copies}
        for row in sorted(candidates.keys() | groups.keys()):
            if (group := groups.get(row)) is not None and self._met.setdefault(group, row) != row:
                errors[row] = _EXACT
                self._dropped.add(row)
                continue
            best = max((v for other, v in candidates.get(row, ()) if other not in self._dropped), default=None)
            if best is not None:
                errors[row] = _near(f"{best:.2f}")
                self._dropped.add(row)
        return errors

    def forget(self, begin: int, end: int) -> None:
        """Rows `begin` to `end` were not drawn: later ones are not compared with them."""
        if begin >= end:
            return
        self._met = {group: row for group, row in self._met.items() if not begin <= row < end}
        self._dropped.update(self._earlier[(self._earlier >= begin) & (self._earlier < end)].tolist())


class Deduplicator:
    """Duplicates among texts in memory, across calls: the same steps for a sample."""

    def __init__(self, threshold: float, directory: Path | None = None) -> None:
        """`directory` is not used: nothing is written."""
        self._threshold = threshold
        self._prints: list[Fingerprints] = []

    def check(self, texts: Sequence[str], tools: Sequence[str] | None = None) -> list[RowError | None]:
        """For each text an error (`exact_duplicate`, `near_duplicate`) or None, which keeps it."""
        plain = [normalise(text) for text in texts]
        found = read_words(plain)
        before = sum(len(prints.exact) for prints in self._prints)
        self._prints.append(fingerprints(self._threshold, plain, *found, tools or [""] * len(plain)))
        exact = np.concatenate([prints.exact for prints in self._prints])
        keys = np.concatenate([prints.keys for prints in self._prints])
        signatures = np.concatenate([prints.signatures for prints in self._prints])
        rows = np.arange(len(exact))
        pairs = find_pairs(keys.ravel(), np.repeat(rows, BANDS), lambda some: signatures[some], self._threshold)
        errors = Resolver(find_equal(exact, rows), pairs).check(0, len(rows))
        return [errors.get(row) for row in range(before, len(rows))]


_EXACT = RowError("exact_duplicate", "the text of an earlier row, but for case and spacing")


@cache
def _near(similarity: str) -> RowError:
    """One for all rows of a similarity: there can be millions."""
    return RowError("near_duplicate", f"Jaccard similarity of about {similarity} with an earlier row")


def _starts(keys: Hashes) -> Numbers:
    """For each of the sorted keys, where its equals begin."""
    first = np.flatnonzero(np.diff(keys, prepend=keys[:1] - np.uint64(1)))
    return np.repeat(first, np.diff(first, append=len(keys)))


def _blocks(later: Numbers, earlier: Numbers, size: int = 1 << 16) -> Iterator[tuple[Numbers, Numbers]]:
    for at in range(0, len(later), size):
        yield later[at : at + size], earlier[at : at + size]


def _similarity(one: Signatures, other: Signatures) -> NDArray[np.float64]:
    # Only the low byte of each value is kept, so 1 in 256 agrees by chance (b-bit minwise hashing, Li & König 2010).
    chance = 1 / 256
    return ((one == other).mean(axis=1) - chance) / (1 - chance)


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


_SEED = (
    derive_seed("minhash", 31) >> 1
)  # As good as any other; with it the nano recipe's data are those of earlier versions.
