"""Text as curation compares it: normalised, in words, as hashed word n-grams, many texts at a time."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Scripts written without spaces count one word a character.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
_ASCII_WORD = re.compile(r"\w+|[^\w\s]", re.ASCII)

# NFKC makes 32 of 3² and 21/2 of 2½: the place is written out first.
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070-\u207f]+")
_LOWERED = re.compile("[\u2080-\u209c]+")
_FRACTION = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e\u2189])")
_PLAIN = str.maketrans({**dict.fromkeys("\u2212\u2012\ufe63\uff0d", "-"), "\u2044": "/"})

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
    if not text.isascii():
        text = _RAISED.sub(lambda match: "^" + match[0], text)
        text = _LOWERED.sub(lambda match: "_" + match[0], text)
        text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", text)).translate(_PLAIN)
    return " ".join(text.casefold().split())


def words(normalised: str) -> list[str]:
    """Runs of letters and digits; every other sign, and every CJK character, is one word."""
    return (_ASCII_WORD if normalised.isascii() else _WORD).findall(normalised)


def quantities(found: Sequence[str]) -> int:
    """Hash of the numbers and operators among the words of a text, in their order, whether in digits, words, Unicode or
    LaTeX: tasks that differ here have different answers."""
    return crc32("\0".join(_quantities(found)).encode())


def _quantities(found: Sequence[str]) -> list[str]:
    kinds = list(map(_KINDS.__getitem__, found))
    if len(_KINDS) > _MOST_CACHED:
        _KINDS.clear()
    result = []
    for at in compress(range(len(found)), kinds):
        kind = kinds[at]
        before = found[at - 1] if at else ""
        if kind == _IN_CONTEXT:
            kind = _in_context(found[at], before, found[at + 1] if at + 1 < len(found) else "")
        elif before in _POINTS and at > 1 and found[at - 2][-1].isdigit() and found[at][0].isdigit():
            kind = before + kind
        if kind:
            result.append(kind)
    return result


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


class _Kinds(dict[str, str]):
    """What words count as, as many as have been met."""

    def __missing__(self, word: str) -> str:
        if word in _SIGNS:
            value = _IN_CONTEXT
        elif numbers := _DIGITS.findall(word):
            value = "\0".join(numbers)
        elif word in _OPERATORS or word in _NUMERALS or unicodedata.category(word[0]) == "Sm":
            value = _CANONICAL.get(word, word)
        else:
            value = _NUMBERS.get(word, "")
        self[word] = value
        return value


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


def hash_words(texts: Sequence[Sequence[str]], at_least: int = 0) -> Words:
    """Hashes of the words of each text; texts of fewer than `at_least` words are filled up with an empty one."""
    flat: list[int] = []
    lengths = np.zeros(len(texts), np.int64)
    for row, found in enumerate(texts):
        before = len(flat)
        flat.extend(map(_HASHES.__getitem__, found))
        if len(flat) - before < at_least:
            flat += [0] * (at_least - (len(flat) - before))
        lengths[row] = len(flat) - before
    if len(_HASHES) > _MOST_CACHED:
        _HASHES.clear()
    return Words(mix(np.array(flat, np.uint64)), np.repeat(np.arange(len(texts), dtype=np.int64), lengths), lengths)


class _WordHashes(dict[str, int]):
    """Hashes of words, as many as have been met."""

    def __missing__(self, word: str) -> int:
        self[word] = value = crc32(word.encode()) + 1
        return value


_HASHES = _WordHashes()
_KINDS = _Kinds()
_MOST_CACHED = 1 << 18


def mix(values: Hashes) -> Hashes:
    """Spread values over all 64 bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
