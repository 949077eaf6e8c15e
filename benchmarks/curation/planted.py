"""Planted pairs of known truth: is the second text the first one again, or another task?"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.curation.rows import Text

WORDS = 200
"""Of a text. Three words replaced among as many leave a Jaccard similarity of shingles of 0.91 or more."""
OPERATORS = [
    ("+", "-"),
    ("\u2264", "\u2265"),
    ("\u222a", "\u2229"),
    (r"\leq", r"\geq"),
    ("\u00d7", "\u00f7"),
    ("<", ">"),
]
_NUMBER_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@dataclass(frozen=True)
class Pair:
    kind: str
    first: str
    second: str
    same: bool
    """Whether the second is to be found."""


class Planter:
    def __init__(self, seed: int = 7):
        self._text = Text()
        self._rng = random.Random(seed)
        self._translation = {word: f"{word[::-1]}o" for word in set(self._text.sentences(self._rng, 50_000).split())}

    def pairs(self, count: int) -> list[Pair]:
        """As many of each kind."""
        kinds: list[tuple[str, bool, Callable[[str], str]]] = [
            ("case and spacing", True, lambda text: "  ".join(text.upper().split(" "))),
            ("edited words", True, self._edited),
            ("copy inside a longer text", True, self._inside),
            ("reordered sentences", True, self._reordered),
            ("translated wording", True, self._translated),
            ("edited numbers", False, self._other_number),
            ("edited number words", False, self._other_number_word),
            ("edited operators", False, self._other_operator),
        ]
        made = []
        for number in range(count):
            kind, same, change = kinds[number % len(kinds)]
            first = self._task()
            made.append(Pair(kind, first, change(first), same))
        return made

    def _task(self) -> str:
        rng = self._rng
        one, _ = rng.choice(OPERATORS)
        body = self._text.sentences(rng, WORDS)
        number = rng.choice(_NUMBER_WORDS)
        return f"{body} There are {number} of them, and x {one} {rng.randrange(10, 1000)} holds. What is x?"

    def _edited(self, text: str) -> str:
        words = text.split(" ")
        for at in self._rng.sample(range(WORDS), 3):
            if words[at].isalpha() and words[at] not in _NUMBER_WORDS:
                words[at] = self._text.word(self._rng)
        return " ".join(words)

    def _inside(self, text: str) -> str:
        return f"{self._text.sentences(self._rng, WORDS // 2)} {text} {self._text.sentences(self._rng, WORDS // 2)}"

    def _reordered(self, text: str) -> str:
        sentences = text.split(". ")
        return ". ".join(self._rng.sample(sentences, len(sentences)))

    def _translated(self, text: str) -> str:
        return " ".join(self._translation.get(word, word) for word in text.split(" "))

    def _other_number(self, text: str) -> str:
        head, number = text.rsplit(" holds", 1)[0].rsplit(" ", 1)
        return f"{head} {int(number) + 1} holds. What is x?"

    def _other_number_word(self, text: str) -> str:
        head, rest = text.rsplit("There are ", 1)
        number, rest = rest.split(" ", 1)
        other = self._rng.choice([word for word in _NUMBER_WORDS if word != number])
        return f"{head}There are {other} {rest}"

    def _other_operator(self, text: str) -> str:
        head, rest = text.rsplit(" and x ", 1)
        sign, rest = rest.split(" ", 1)
        other = next(b for a, b in OPERATORS if a == sign)
        return f"{head} and x {other} {rest}"
