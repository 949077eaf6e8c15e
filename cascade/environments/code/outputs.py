"""Whether a program printed what was expected, by NeMo Gym's rules for `code_gen`.

White space around the output and around each line does not count; the number of lines does. Lines that differ are
compared number by number: equal, or where one is written as a floating-point number within 1e-6, relative or absolute.
"""

from decimal import Decimal, InvalidOperation

TOLERANCE = Decimal("1e-6")


def same_output(expected: str, printed: str) -> bool:
    wanted, found = _lines(expected), _lines(printed)
    return len(wanted) == len(found) and all(map(_same_line, wanted, found))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(wanted: str, found: str) -> bool:
    if wanted == found:
        return True
    words, others = wanted.split(), found.split()
    return len(words) == len(others) and all(map(_same_number, words, others))


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
