"""Removal of training rows that overlap a benchmark prompt. Benchmarks themselves are never touched.

A row is dropped when, for some benchmark prompt,

- at least `similarity` of the prompt's word n-grams occur in the row (anywhere in the conversation), n being
  `ngram` words, or the prompt's own length where that is shorter, down to SHORTEST words; or
- one of its user messages is the prompt but for a share of 1 - `similarity` of the characters (normalised
  insertion and deletion distance).

Generated rows share their wording with the generator's benchmark by construction, and differ in what was drawn:
for them a benchmark prompt counts only where its numbers and operators are those of the row, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Indel
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from cascade.curation.text import Hashes, Words, normalise, quantities, read_words
from cascade.errors import RowError
from cascade.recipe import Decontamination

SHORTEST = 8
"""Benchmark prompts of fewer words are compared as strings only: so short a run of words occurs by chance."""
BLOCK = 512
_BINS = 64
_ROUNDING = 1e-6
_PAIRS = 1 << 20
"""Pairs of strings whose letter counts are compared at once."""


@dataclass(frozen=True)
class Text:
    """The text of a row that is compared: the hashed words of all of it, and each user message, normalised."""

    conversation: Hashes
    user_messages: tuple[str, ...]
    generated: bool = False


@dataclass(frozen=True)
class _Grams:
    """N-grams of one length: sorted hashes [g], and which benchmark prompts [g, prompts] have them."""

    n: int
    hashes: Hashes
    prompts: csr_array
    sizes: NDArray[np.int64]
    """[prompts], distinct n-grams of each; 0 where the prompt is compared at another length."""


class Decontaminator:
    def __init__(self, settings: Decontamination, prompts: Sequence[tuple[str, str]]):
        """`prompts`: id and text (user messages) of every benchmark prompt."""
        self._similarity = settings.similarity
        # As it is written: 0.93 itself, not the float next to it.
        self._exact = Fraction(str(settings.similarity)).limit_denominator(10**9)
        self._shortest_ratio = settings.similarity / (2 - settings.similarity)
        # By length, so that strings are compared with a range of prompts.
        ordered = sorted(((normalise(text), name) for name, text in prompts), key=lambda p: (len(p[0]), p))
        self._plain = [text for text, _ in ordered]
        self._names = [name for _, name in ordered]
        self._lengths = np.array([len(text) for text in self._plain])
        self._letters = _letters(self._plain)
        self._quantities = quantities(self._plain)
        self._grams = _index(self._plain, settings.ngram)

    @property
    def prompts(self) -> int:
        return len(self._names)

    def check(self, texts: Sequence[Text]) -> list[RowError | None]:
        """For each row an error (`benchmark_overlap`, `benchmark_similarity`) or None."""
        if not self._names:
            return [None] * len(texts)
        errors: list[RowError | None] = []
        for at in range(0, len(texts), BLOCK):
            block = texts[at : at + BLOCK]
            similar = self._similar(block)
            overlap = self._overlap(block)
            errors += [o or s for o, s in zip(overlap, similar, strict=True)]
        return errors

    def _overlap(self, block: Sequence[Text]) -> list[RowError | None]:
        errors: list[RowError | None] = [None] * len(block)
        hashed = Words.of([text.conversation for text in block])
        tasks: list[set[int]] = []
        for grams in self._grams:
            hashes, rows = hashed.ngrams(grams.n)
            column = np.minimum(np.searchsorted(grams.hashes, hashes), len(grams.hashes) - 1)
            in_benchmark = grams.hashes[column] == hashes
            pairs = np.unique(np.stack([rows[in_benchmark], column[in_benchmark]]), axis=1)
            shape = (len(block), len(grams.hashes))
            occurrences = csr_array((np.ones(pairs.shape[1], np.int32), (pairs[0], pairs[1])), shape=shape)
            shared = (occurrences @ grams.prompts).tocoo()
            share = shared.data / grams.sizes[shared.col]
            for at in np.flatnonzero(share >= self._similarity):
                tasks = tasks or _tasks(block)
                row, prompt = int(shared.row[at]), int(shared.col[at])
                if errors[row] is None and (not block[row].generated or self._quantities[prompt] in tasks[row]):
                    errors[row] = RowError(
                        "benchmark_overlap",
                        f"has {share[at]:.0%} of the {grams.n}-word runs of benchmark prompt {self._names[prompt]}",
                    )
        return errors

    def _similar(self, block: Sequence[Text]) -> list[RowError | None]:
        errors: list[RowError | None] = [None] * len(block)
        messages = [
            _Message(row, part, text.generated) for row, text in enumerate(block) for part in text.user_messages
        ]
        # No string is similar enough to one of a very different length.
        longest = self._lengths[-1] / self._shortest_ratio + _ROUNDING
        messages = sorted((a for a in messages if len(a.text) <= longest), key=lambda a: len(a.text))
        step = max(1, _PAIRS // len(self._names))
        for start in range(0, len(messages), step):
            part = messages[start : start + step]
            queries, prompts = self._candidates(part)
            if not queries:
                continue
            # In whole numbers: a ratio of floats, in the library float32, falls short of 0.93 where it is 0.93.
            lengths = np.array(
                [len(part[i].text) + int(self._lengths[j]) for i, j in zip(queries, prompts, strict=True)]
            )
            allowed = lengths * (self._exact.denominator - self._exact.numerator) // self._exact.denominator
            values = process.cpdist(
                [part[i].text for i in queries],
                [self._plain[j] for j in prompts],
                scorer=Indel.distance,
                score_cutoff=int(allowed.max()),
                dtype=np.int64,
            )
            for at in np.flatnonzero(values <= allowed):
                row = part[queries[at]].row
                errors[row] = errors[row] or RowError(
                    "benchmark_similarity",
                    f"a message is {100 * (1 - values[at] / max(lengths[at], 1)):.0f} % the text of benchmark prompt "
                    f"{self._names[prompts[at]]}",
                )
        return errors

    def _candidates(self, messages: list["_Message"]) -> tuple[list[int], list[int]]:
        """Pairs (message, prompt) that can be similar enough: surplus letters must be inserted or deleted."""
        lengths = np.array([len(a.text) for a in messages])
        low = int(np.searchsorted(self._lengths, lengths[0] * self._shortest_ratio - _ROUNDING, "left"))
        high = int(np.searchsorted(self._lengths, lengths[-1] / self._shortest_ratio + _ROUNDING, "right"))
        if low >= high:
            return [], []
        distance = cdist(_letters([a.text for a in messages]), self._letters[low:high], "cityblock")
        possible = distance <= (1 - self._similarity) * (lengths[:, None] + self._lengths[None, low:high]) + _ROUNDING
        generated = np.array([a.generated for a in messages])
        tasks = quantities([a.text if a.generated else "" for a in messages])
        same_task = tasks[:, None] == self._quantities[low:high]
        pairs = np.argwhere(possible & (same_task | ~generated[:, None]))
        return pairs[:, 0].tolist(), (pairs[:, 1] + low).tolist()


@dataclass(frozen=True)
class _Message:
    row: int
    text: str
    generated: bool


def _tasks(block: Sequence[Text]) -> list[set[int]]:
    """Of each row the quantities of its user messages; none of rows that are not generated, for which they do not
    matter."""
    asked = [text.user_messages if text.generated else () for text in block]
    found = iter(quantities([message for messages in asked for message in messages]).tolist())
    return [{next(found) for _ in messages} for messages in asked]


def _index(plain: list[str], ngram: int) -> list[_Grams]:
    hashed, _ = read_words(plain)
    gram_lengths = np.where(hashed.lengths >= min(SHORTEST, ngram), np.minimum(hashed.lengths, ngram), 0)
    index = []
    for n in sorted(set(gram_lengths.tolist()) - {0}):
        hashes, rows = hashed.ngrams(n)
        used = gram_lengths[rows] == n
        distinct, column = np.unique(hashes[used], return_inverse=True)
        pairs = np.unique(np.stack([column, rows[used]]), axis=1)
        prompts = csr_array(
            (np.ones(pairs.shape[1], np.int32), (pairs[0], pairs[1])), shape=(len(distinct), len(plain))
        )
        index.append(_Grams(n, distinct, prompts, np.bincount(pairs[1], minlength=len(plain))))
    return index


def _letters(texts: list[str]) -> NDArray[np.float32]:
    """[texts, _BINS]: how often characters occur, code points folded into bins."""
    counts = np.empty((len(texts), _BINS), np.float32)
    for row, text in enumerate(texts):
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        counts[row] = np.bincount(points % _BINS, minlength=_BINS)
    return counts
