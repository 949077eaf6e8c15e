"""Text as curation compares it: normalised, in words, as hashed word n-grams, many texts at a time."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Scripts written without spaces count one word a character.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_LETTER = re.compile(rf"[^\W{_CJK}]")
_SINGLE = re.compile(rf"[{_CJK}]|[^\w\s]")

# NFKC makes 32 of 3² and 21/2 of 2½: the place is written out first.
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070-\u207f]+")
_LOWERED = re.compile("[\u2080-\u209c]+")
_FRACTION = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e\u2189])")
_PLAIN = str.maketrans({**dict.fromkeys("\u2212\u2012\ufe63\uff0d", "-"), "\u2044": "/"})

_BLANKS = "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""ASCII's white space beside the space itself."""

_NUMBER_WORDS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_NUMBERS = {
    "zero": "0",
    **{word: str(number) for number, word in enumerate(_NUMBER_WORDS, 2)},
    **dict(
        zip(
            ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
            map(str, range(20, 100, 10)),
            strict=True,
        )
    ),
    **dict.fromkeys(("hundred", "hundreds"), "00"),
    **dict.fromkeys(("thousand", "thousands"), "000"),
    **{word + plural: word for word in ("million", "billion", "trillion", "dozen") for plural in ("", "s")},
    **{
        word: word
        for word in [
            "half",
            "twice",
            "thrice",
            "double",
            "triple",
            "quarter",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "tenth",
        ]
    },
}
"""Words of a number. Not one, once, first and second, which as a rule count nothing."""

# Spellings of an operator, by the one that stands for all.
_SPELLINGS = {
    "<\0=": "\u2264 \u2a7d \u2266 \\le \\leq \\leqslant",
    ">\0=": "\u2265 \u2a7e \u2267 \\ge \\geq \\geqslant",
    "!\0=": "\u2260 \\ne \\neq",
    "*": "\u00d7 \u22c5 \u00b7 \\times \\cdot",
    "/": "\u00f7 \u2215 \\div",
    "<": "\\lt",
    ">": "\\gt",
    "\u00b1": "\\pm",
    "\u222a": "\\cup",
    "\u2229": "\\cap",
    "\u221a": "\\sqrt",
    "\u2211": "\\sum",
    "\u220f": "\\prod",
    "\u222b": "\\int",
    "\u2208": "\\in",
    "\u2209": "\\notin",
    "\u2282": "\\subset",
    "\u2286": "\\subseteq",
    "\u221e": "\\infty",
    "\u2248": "\\approx",
    "\u2261": "\\equiv",
    "-\0>": "\u2192 \\to \\rightarrow",
    "=\0>": "\u21d2 \\implies",
    "\u2227": "\\land \\wedge",
    "\u2228": "\\lor \\vee",
    "\u00ac": "\\neg \\lnot",
    "\u00b0": "\\circ",
}
_CANONICAL = {other: one for one, others in _SPELLINGS.items() for other in others.split()}
_LAYOUT = frozenset(
    [
        "left",
        "right",
        "big",
        "bigl",
        "bigr",
        "text",
        "textbf",
        "textit",
        "texttt",
        "mathrm",
        "mathbf",
        "mathit",
        "mathsf",
        "displaystyle",
        "textstyle",
        "quad",
        "qquad",
        "begin",
        "end",
        "boxed",
        "label",
        "hspace",
        "vspace",
        "item",
        "limits",
        "nolimits",
        "operatorname",
        "hline",
        "dfrac",
        "tfrac",
        "frac",
    ]
)
"""LaTeX commands of layout, and fractions, whose two numbers say it: every other one means something."""
_OPERATORS = frozenset("+*^%~<>=/&|\u2032\u2033\u00b0\u00b7")
"""Operators that Unicode does not count among the mathematical symbols (category Sm), and ASCII's."""
_NUMERALS = frozenset(
    "\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e\u5343\u4e07\u4ebf\u4e24\u534a"
)
_POINTS = frozenset(".,:")
"""Between two numbers they make one of them."""
_SIGNS = frozenset("-!'\\")
"""Signs that are part of a number or an operator only beside certain others."""
_IN_CONTEXT = "?"
_DIGITS = re.compile(r"\d+")
_COMMAND = re.compile(r"[a-z]+")
_AFTER_MINUS = frozenset("(\\>")
_AFTER_FACTORIAL = frozenset(")+*/^=-]}")

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def normalise(text: str) -> str:
    """Compatibility forms unified (NFKC), case folded, runs of white space one space. Superscripts become ^, subscripts
    _, every minus sign -."""
    if text.isascii():
        text = text.lower()
        for blank in _BLANKS:
            text = text.replace(blank, " ")
        while "  " in text:
            text = text.replace("  ", " ")
        return text.strip(" ")
    text = _RAISED.sub(lambda match: "^" + match[0], text)
    text = _LOWERED.sub(lambda match: "_" + match[0], text)
    text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", text)).translate(_PLAIN)
    return " ".join(text.casefold().split())


def words(normalised: str) -> list[str]:
    """Runs of letters and digits; every other sign, and every CJK character, is one word."""
    found = _Split([normalised])
    return [found.word(at).decode("utf-8", "surrogatepass") for at in range(len(found.starts))]


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
        combined = self.hashes[:count].copy()
        for offset in range(1, n):
            combined *= _PRIME
            combined += self.hashes[offset : offset + count]
        inside = self.rows[:count] == self.rows[n - 1 :]
        return mix(combined[inside]), self.rows[:count][inside]

    def some(self, begin: int, end: int) -> "Words":
        """Those of the texts from `begin` to `end`, which keep their numbers."""
        words = slice(*np.searchsorted(self.rows, [begin, end]).tolist())
        return Words(self.hashes[words], self.rows[words], self.lengths[begin:end])

    def parts(self) -> list[Hashes]:
        """The words of each text."""
        bounds = [0, *np.cumsum(self.lengths).tolist()]
        return [self.hashes[begin:end] for begin, end in pairwise(bounds)]

    @classmethod
    def of(cls, parts: Sequence[Hashes]) -> "Words":
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        hashes = np.concatenate([np.empty(0, np.uint64), *parts])
        return cls(hashes, np.repeat(np.arange(len(lengths)), lengths), lengths)

    def filled(self, least: int) -> "Words":
        """Texts of fewer than `least` words are filled up with an empty one."""
        missing = np.maximum(least - self.lengths, 0)
        if not missing.any():
            return self
        lengths = self.lengths + missing
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(self.hashes)) + np.repeat(np.cumsum(missing) - missing, self.lengths)
        hashes = np.zeros(len(rows), np.uint64)
        hashes[places] = self.hashes
        return Words(hashes, rows, lengths)


def read_words(normalised: Sequence[str]) -> tuple[Words, Hashes]:
    """The words of each text, and a hash of its quantities: the numbers and operators among its words, in their order,
    whether in digits, words, Unicode or LaTeX. Tasks that differ here have different answers."""
    hashes, tasks = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    lengths = [np.empty(0, np.int64)]
    for begin, end in blocks(list(map(len, normalised)), _BLOCK):
        found = _Split(normalised[begin:end])
        checks = found.checks()
        hashes.append(mix(checks + np.uint64(1)))
        lengths.append(found.counts)
        tasks.append(found.quantities(checks))
    counts = np.concatenate(lengths)
    return Words(np.concatenate(hashes), np.repeat(np.arange(len(counts)), counts), counts), np.concatenate(tasks)


def blocks(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of what has these sizes: each ends where it has reached `most`."""
    begin = total = 0
    for at, size in enumerate(sizes, 1):
        total += size
        if total >= most:
            yield begin, at
            begin, total = at, 0
    if begin < len(sizes):
        yield begin, len(sizes)


def quantities(normalised: Sequence[str]) -> Hashes:
    """Of each text the hash of its quantities, as `read_words` gives it."""
    found = _Split(normalised)
    return found.quantities(found.checks())


class _Split:
    """Texts in words: the bytes of all texts, and where each word starts and ends."""

    def __init__(self, texts: Sequence[str]):
        joined = "\n".join(texts)
        self._data = joined.encode("utf-8", "surrogatepass")
        self._bytes = np.frombuffer(self._data, np.uint8)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        if joined.isascii():
            kinds = np.frombuffer(self._data.translate(_ascii_kinds()), np.uint8)
            offsets = None
        else:
            points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
            kinds = _kinds()[points]
            sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        letter, any_word = (kinds & _IS_LETTER).view(bool), (kinds & (_IS_LETTER | _IS_SINGLE)).astype(bool)
        inner = letter[1:] & letter[:-1]
        begins, stops = any_word.copy(), any_word
        begins[1:] &= ~inner
        stops[:-1] &= ~inner
        self.starts, self._ends = np.flatnonzero(begins), np.flatnonzero(stops) + 1
        # Where texts begin, a separator between them.
        begin = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + 1)])
        self._bounds = np.searchsorted(self.starts, begin)
        self.counts = np.diff(self._bounds)
        counted = np.flatnonzero((kinds & _COUNTS).astype(bool))
        self._counted = np.searchsorted(self.starts, counted, "right") - 1
        if offsets is not None:
            self.starts, self._ends = offsets[self.starts], offsets[self._ends]

    def word(self, at: int) -> bytes:
        return self._data[self.starts[at] : self._ends[at]]

    def checks(self) -> Hashes:
        """CRC-32 of each word. It is linear: the exclusive or of what its bytes give at their distance from the end.
        They are looked up in pairs, of the last eight bytes of all words at once, then of the eight before them."""
        lengths = self._ends - self.starts
        # Eight bytes from any place on: of the text that is preceded by eight others, the last ones before that place.
        padded = bytes(8) + self._data
        eights: Hashes = np.ndarray(len(self._data) + 1, "<u8", padded, strides=(1,))
        tables, empty = _crc_tables()
        values = empty[np.minimum(lengths, _LONGEST)]
        some, ends, left = np.arange(len(lengths)), self._ends, lengths
        for at in range(0, _LONGEST, 8):
            # What is before the word becomes zero, which gives nothing.
            before = (8 * (8 - np.minimum(left, 8))).astype(np.uint64)
            pairs = ((eights[ends] >> before) << before).view("<u2").reshape(-1, 4)
            value = tables[at // 2].take(pairs[:, 3])
            for pair in (1, 2, 3):
                value ^= tables[at // 2 + pair].take(pairs[:, 3 - pair])
            values[some] ^= value
            longer = np.flatnonzero(left > 8)
            if not len(longer):
                break
            some, ends, left = some[longer], ends[longer] - 8, left[longer] - 8
        for at in np.flatnonzero(lengths > _LONGEST).tolist():
            values[at] = crc32(self.word(at))
        return values.astype(np.uint64)

    def quantities(self, checks: Hashes) -> Hashes:
        """Of each text; `checks` are those of the words."""
        may_count = _may_be_number()[checks & np.uint64(0xFFFF)]
        may_count[self._counted] = True
        candidates = np.flatnonzero(may_count)
        bounds = np.searchsorted(candidates, self._bounds).tolist()
        begins, ends = self.starts[candidates].tolist(), self._ends[candidates].tolist()
        kinds = [_KINDS[self._data[begin:end]] for begin, end in zip(begins, ends, strict=True)]
        if len(_KINDS) > _MOST_CACHED:
            _KINDS.clear()
        # Two signs depend on others: those of _SIGNS, and numbers after a point.
        numbers = np.flatnonzero(candidates >= 2)
        for back, is_of in ((1, _IS_POINT), (2, _MAY_BE_DIGIT)):
            numbers = numbers[is_of[self._bytes[self._ends[candidates[numbers] - back] - 1]]]
        signs = [at for at, kind in enumerate(kinds) if kind == _IN_CONTEXT]
        for at in {*signs, *numbers.tolist()}:
            text = int(np.searchsorted(self._bounds, candidates[at], "right")) - 1
            kinds[at] = self._beside_others(text, int(candidates[at]), kinds[at])
        return np.array([crc32("\0".join(filter(None, kinds[a:b])).encode()) for a, b in pairwise(bounds)], np.uint64)

    def _beside_others(self, text: int, at: int, kind: str) -> str:
        word, before = self._neighbour(text, at), self._neighbour(text, at - 1)
        if kind == _IN_CONTEXT:
            return _in_context(word, before, self._neighbour(text, at + 1))
        earlier = self._neighbour(text, at - 2)
        return before + kind if before in _POINTS and earlier[-1:].isdigit() and word[0].isdigit() else kind

    def _neighbour(self, text: int, at: int) -> str:
        if not self._bounds[text] <= at < self._bounds[text + 1]:
            return ""
        return self.word(at).decode("utf-8", "surrogatepass")


def _in_context(sign: str, before: str, after: str) -> str:
    """What a sign counts as between two words; nothing in prose."""
    number_before, number_after = before[-1:].isdigit(), after[:1].isdigit()
    if sign == "\\":
        name = match[0] if (match := _COMMAND.match(after)) else ""
        return "" if not name or name in _LAYOUT else _CANONICAL.get("\\" + name, "\\" + name)
    if sign == "-":
        if before in _NUMBERS and after == "one":
            return "1"
        variables = len(after) == 1 and after.isalpha() and (len(before) == 1 or not before.isalpha())
        return "-" if number_before or number_after or before == ")" or after in _AFTER_MINUS or variables else ""
    if sign == "'":
        return "'" if after == "(" else ""
    factorial = (number_before or len(before) == 1) and after in _AFTER_FACTORIAL
    return "!" if after == "=" or factorial else ""


class _Kinds(dict[bytes, str]):
    """What words count as, as many as have been met."""

    def __missing__(self, encoded: bytes) -> str:
        word = encoded.decode("utf-8", "surrogatepass")
        if word in _SIGNS:
            value = _IN_CONTEXT
        elif numbers := _DIGITS.findall(word):
            value = "\0".join(numbers)
        elif word in _OPERATORS or word in _NUMERALS or unicodedata.category(word[0]) == "Sm":
            value = _CANONICAL.get(word, word)
        else:
            value = _NUMBERS.get(word, "")
        self[encoded] = value
        return value


_KINDS = _Kinds()
_IS_POINT = np.isin(np.arange(256), list(b".,:"))
_MAY_BE_DIGIT = np.isin(np.arange(256), list(b"0123456789")) | (np.arange(256) >= 0x80)
"""By a byte of UTF-8 that a digit begins or ends with."""
_MOST_CACHED = 1 << 18
_IS_LETTER, _IS_SINGLE, _COUNTS = np.uint8(1), np.uint8(2), np.uint8(4)
_LONGEST = 64
"""Bytes of a word whose hash is computed with those of all others."""
_BLOCK = 1 << 16
"""Characters that are split in words at once: their arrays stay in the processor's cache."""


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of each character: whether words are made of it or it is one, and whether it may count as a quantity."""
    return _kinds_of(0x110000)


@cache
def _ascii_kinds() -> bytes:
    """The same of ASCII, for `bytes.translate`."""
    return _kinds_of(128).tobytes() + bytes(128)


def _kinds_of(count: int) -> NDArray[np.uint8]:
    kinds = np.zeros(count, np.uint8)
    characters = "".join(map(chr, range(count)))
    for pattern, kind in ((_LETTER, _IS_LETTER), (_SINGLE, _IS_SINGLE), (_DIGITS, _COUNTS)):
        for match in re.finditer(f"(?:{pattern.pattern})+", characters):
            kinds[match.start() : match.end()] |= kind
    # All signs beyond ASCII are looked at, but of CJK characters the numerals alone.
    kinds[128:][(kinds[128:] & _IS_SINGLE) > 0] |= _COUNTS
    for begin, end in ((0x3400, 0xA000), (0xAC00, 0xD7B0)):
        kinds[begin:end] &= ~_COUNTS
    for sign in {*_SIGNS, *_OPERATORS, *_NUMERALS, *"+<=>|~"}:
        if ord(sign) < count:
            kinds[ord(sign)] |= _COUNTS
    return kinds


@cache
def _may_be_number() -> NDArray[np.bool_]:
    """By the low 16 bits of a word's CRC: whether it may be one of _NUMBERS."""
    found = np.zeros(1 << 16, bool)
    found[[crc32(word.encode()) & 0xFFFF for word in _NUMBERS]] = True
    return found


@cache
def _crc_tables() -> tuple[list[NDArray[np.uint32]], NDArray[np.uint32]]:
    """What two bytes give, by the number they are (little-endian), at a distance of 0, 2, … from the end; the CRC of so
    many zero bytes."""
    empty = np.array([crc32(bytes(n)) for n in range(_LONGEST + 1)], np.uint32)
    table = [[crc32(bytes([byte]) + bytes(d)) for byte in range(256)] for d in range(_LONGEST)]
    single = np.array(table, np.uint32) ^ empty[1:, None]
    return [np.bitwise_xor.outer(single[d], single[d + 1]).ravel() for d in range(0, _LONGEST, 2)], empty


def mix(values: Hashes) -> Hashes:
    """Spread values over all 64 bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
