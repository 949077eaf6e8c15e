"""Text as curation compares it: normalised, in words, as hashed word n-grams, many texts at a time."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Scripts written without spaces count one word a character.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
_QUANTITY = re.compile(r"\d+(?:[.,:/]\d+)*|[+*/^\u00d7\u00f7=<>]|-(?=\s?\d)")

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def normalise(text: str) -> str:
    """Compatibility forms unified (NFKC), case folded, runs of white space one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(normalised: str) -> list[str]:
    """Runs of letters and digits; every other sign, and every CJK character, is one word."""
    return _WORD.findall(normalised)


def quantities(normalised: str) -> int:
    """Hash of the numbers and operators in their order: tasks that differ here have different answers."""
    return crc32("\0".join(_QUANTITY.findall(normalised)).encode())


@dataclass(frozen=True)
class Words:
    """Hashed words of several texts, one after the other. `rows[i]` is the text that word i belongs to."""

    hashes: Hashes
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def ngrams(self, n: int) -> tuple[Hashes, NDArray[np.int64]]:
        """Hash and text of every run of n words within one text."""
        count = len(self.hashes) - n + 1
        if count <= 0:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        combined = np.zeros(count, np.uint64)
        for offset in range(n):
            combined = combined * _PRIME + self.hashes[offset : offset + count]
        inside = self.rows[:count] == self.rows[n - 1 :]
        return mix(combined[inside]), self.rows[:count][inside]


def hash_words(normalised: Sequence[str], at_least: int = 0) -> Words:
    """The words of each text; texts of fewer than `at_least` words are filled up with an empty one."""
    flat: list[int] = []
    lengths = np.zeros(len(normalised), np.int64)
    for row, text in enumerate(normalised):
        hashes = [crc32(word.encode()) + 1 for word in words(text)]
        hashes += [0] * (at_least - len(hashes))
        lengths[row] = len(hashes)
        flat += hashes
    return Words(
        mix(np.array(flat, np.uint64)), np.repeat(np.arange(len(normalised), dtype=np.int64), lengths), lengths
    )


def mix(values: Hashes) -> Hashes:
    """Spread values over all 64 bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
