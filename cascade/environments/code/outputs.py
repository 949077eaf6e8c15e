"""Whether a program printed what was expected, by NeMo Gym's rules for `code_gen`, and numbers among words besides.

White space around the output and around each line does not count; the number of lines does. Lines that differ are
compared word by word: the same, or numbers that are equal, or within 1e-6, relative or absolute, where one is written
as a floating-point number. A number may stand within a word, as in `x=0.333333`. In NeMo Gym a line with a word that is
no number must be the same (`gym`).
"""

import re
from decimal import Decimal, InvalidOperation

TOLERANCE = Decimal("1e-6")

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|infinity)", re.ASCII | re.IGNORECASE)
_FLOAT_WITHIN = re.compile(r"((?<![\w.])[-+]?\d+\.\d+(?:[eE][-+]?\d+)?(?![\w.]))", re.ASCII)


def same_output(expected: str, printed: str, *, gym: bool = False) -> bool:
    wanted, found = _lines(expected), _lines(printed)
    return len(wanted) == len(found) and all(_same_line(*lines, gym) for lines in zip(wanted, found, strict=True))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(wanted: str, found: str, gym: bool) -> bool:
    if wanted == found:
        return True
    words, others = wanted.split(), found.split()
    if len(words) != len(others):
        return False
    if all(map(_same_number if gym else _same_plain_number, words, others)):
        return True
    # Between words, blanks count.
    return not gym and all(map(_same_word, re.split(r"(\s+)", wanted), re.split(r"(\s+)", found)))


def _same_word(wanted: str, found: str) -> bool:
    if wanted == found or _same_plain_number(wanted, found):
        return True
    parts, others = _FLOAT_WITHIN.split(wanted), _FLOAT_WITHIN.split(found)
    return (
        len(parts) > 1
        and len(parts) == len(others)
        and all(
            one == other or (number % 2 == 1 and _same_number(one, other))
            for number, (one, other) in enumerate(zip(parts, others, strict=True))
        )
    )


def _same_plain_number(wanted: str, found: str) -> bool:
    # A Decimal would also take 1_000, and digits of other scripts.
    return bool(_NUMBER.fullmatch(wanted) and _NUMBER.fullmatch(found)) and _same_number(wanted, found)


def _same_number(wanted: str, found: str) -> bool:
    try:
        one, other = Decimal(wanted), Decimal(found)
        if one == other:
            return True
        if not (_is_float(wanted) or _is_float(found)) or not (one.is_finite() and other.is_finite()):
            return False
        return abs(one - other) <= TOLERANCE * max(abs(one), Decimal(1))
    except (InvalidOperation, ArithmeticError):
        return False


def _is_float(word: str) -> bool:
    return "." in word or "e" in word.lower()
