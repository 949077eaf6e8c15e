"""Scorers in place of the library's where it pays for wrong answers, or refuses right ones.

Found by giving each of its families' scorers constants, other rows' answers, negations and several answers at once
(reasoning-gym 0.1.25); docs/environments.md lists what they did.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

Entry = dict[str, Any]

_NUMBER = re.compile(r"(?<![\w.])[-+]?\$?\d(?:[\d,]*\d)?(?:\.\d+)?(?![\w])|(?<![\w.])[-+]?\$?\.\d+(?!\w)")
_NEGATION = re.compile(r"\b(?:not|never|no)\b|n['’]t\b", re.IGNORECASE)
_NOT_FINITE = re.compile(r"\b(?:nan|inf|infinity)\b", re.IGNORECASE)
NEGATIONS_LEFT_OUT = frozenset({"gsm_symbolic", "knights_knaves", "kakurasu", "quantum_lock", "sokoban", "survo"})
"""Families whose scorers skip words that they do not know, "not" among them."""
TOLERANCE = 1e-4
"""Of probabilities, as in the library."""


def worthless(family: str, answer: str, own: str) -> str | None:
    """Why the library must not be asked about this answer, in words; None where it may. `own`: the row's answer."""
    if _NOT_FINITE.search(answer) and not _NOT_FINITE.search(own):
        return "no finite number"
    if family in NEGATIONS_LEFT_OUT and _NEGATION.search(answer) and not _NEGATION.search(own):
        return "a negation"
    return None


def as_tuples(entry: Entry) -> Entry:
    """The row with its board as the library made it: JSON has turned tuples into lists, which it finds unequal."""
    metadata = entry["metadata"]
    board = tuple(tuple(row) for row in metadata["output"])
    return {**entry, "metadata": {**metadata, "output": board}}


def coin_flip(answer: str, entry: Entry) -> float:
    """The probability. The library pays in full for any beginning of it: 0 for 0.3125."""
    try:
        given, wanted = (float(Fraction(text.replace(",", "").strip())) for text in (answer, str(entry["answer"])))
    except (ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return float(abs(given - wanted) <= TOLERANCE)


def gsm_symbolic(answer: str, entry: Entry) -> float:
    """The one number in the answer. The library leaves its sign out, and takes the first of several."""
    numbers = {Fraction(re.sub(r"[$,+]", "", text)) for text in _NUMBER.findall(answer.replace("−", "-"))}
    return float(numbers == {Fraction(str(entry["answer"]).replace(",", ""))})


def game_of_life_halting(answer: str, entry: Entry) -> float:
    """True or False. To the library any text is true, and so is every row's answer."""
    return float(answer.strip().strip(".").lower() == str(entry["answer"]).strip().lower())


def puzzle24(answer: str, entry: Entry) -> float:
    """24 out of the row's four numbers, each once. The library takes any four numbers, and 24.9 for 24."""
    try:
        tree = ast.parse(answer.strip(), mode="eval")
        used: Counter[int] = Counter()
        value = _value(tree.body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return 0.0
    return float(value == 24 and used == Counter(entry["metadata"]["numbers"]))


def _value(node: ast.AST, used: Counter[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used[node.value] += 1
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, used), _value(node.right, used))
    raise ValueError("no sum, difference, product or quotient of numbers")


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
SCORERS: dict[str, Callable[[str, Entry], float]] = {
    "coin_flip": coin_flip,
    "gsm_symbolic": gsm_symbolic,
    "game_of_life_halting": game_of_life_halting,
    "puzzle24": puzzle24,
}
BOARDS = frozenset({"arc_agi", "rearc"})
