"""Constraints by id, and how their `kwargs` are read. The constraints themselves are in `format` and `words`.

A checker is a function of the answer's text and keyword arguments; the decorator names its id and, for each
argument, the reader that turns what a row says into a value or raises ValueError.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cascade.environments.instruction_following.constraints.text import known_languages
from cascade.errors import RowError

Checker = Callable[..., bool]
Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Constraint:
    check: Checker
    readers: Mapping[str, Reader]
    optional: frozenset[str]

    def read(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The checker's arguments. Raises ValueError naming the key that is missing, unknown or unusable."""
        arguments = {}
        for name, value in kwargs.items():
            if name not in self.readers:
                raise ValueError(f"it takes no {name!r}")
            try:
                arguments[name] = self.readers[name](value)
            except ValueError as error:
                raise ValueError(f"{name} = {value!r} is not {error}") from None
        if missing := self.readers.keys() - arguments.keys() - self.optional:
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        return arguments


CONSTRAINTS: dict[str, Constraint] = {}
GYM: dict[str, Checker] = {}


def constraint(*ids: str, optional: tuple[str, ...] = (), **readers: Reader) -> Callable[[Checker], Checker]:
    """Register a checker under its ids."""

    def register(check: Checker) -> Checker:
        for name in ids:
            CONSTRAINTS[name] = Constraint(check, readers, frozenset(optional))
        return check

    return register


def in_gym(name: str) -> Callable[[Checker], Checker]:
    """Register NeMo Gym's own checker of a constraint that is checked otherwise here."""

    def register(check: Checker) -> Checker:
        GYM[name] = check
        return check

    return register


def bind(name: str, kwargs: dict[str, Any] | None, *, gym: bool = False) -> Callable[[str], bool]:
    """The check that one entry of a row asks for, as a function of the answer. `gym`: as NeMo Gym checks.

    Entries of `kwargs` that are None count as absent: many data sets carry every key in every entry. The
    public checkers draw a random value for an absent one; here the row is bad (RowError `bad_row`).
    """
    if name not in CONSTRAINTS:
        raise RowError("bad_row", f"unknown constraint {name!r} in instruction_id_list")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise RowError("bad_row", f"kwargs of {name} are not an object")
    found = CONSTRAINTS[name]
    try:
        arguments = found.read({key: value for key, value in (kwargs or {}).items() if value is not None})
    except ValueError as error:
        raise RowError("bad_row", f"kwargs of {name}: {error}") from None
    # An answer without a word in it follows nothing, though many rules would hold of it.
    check = GYM.get(name, found.check) if gym else found.check
    return lambda text: bool(text.strip()) and check(text, **arguments)


def count(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise ValueError("a whole number from 0 upward")
    return int(value)


def position(value: Any) -> int:
    if count(value) == 0:
        raise ValueError("a whole number from 1 upward")
    return int(value)


def relation(value: Any) -> str:
    if value not in ("at least", "less than"):
        raise ValueError("'at least' or 'less than'")
    return str(value)


def phrase(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value.strip()


def text(value: Any) -> str:
    """A text whose outer white space counts."""
    phrase(value)
    return str(value)


def word(value: Any) -> str:
    """One word; some rows wrap it in a list."""
    return phrase(value[0] if isinstance(value, list) and len(value) == 1 else value)


def words(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of words")
    return [phrase(item) for item in value]


def letter(value: Any) -> str:
    if len(phrase(value)) != 1:
        raise ValueError("one character")
    return phrase(value).lower()


def language(value: Any) -> str:
    if value not in known_languages() and value != "zh":
        raise ValueError("a language code that can be detected")
    return str(value)


def compare(actual: int, relation: str, threshold: int) -> bool:
    return actual >= threshold if relation == "at least" else actual < threshold
