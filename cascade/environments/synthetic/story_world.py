"""The row shape and the words that all domains share: a small vocabulary is learnt by a small model."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from cascade.chat import Row
from cascade.errors import CascadeError
from cascade.utils.seeds import derive_seed

LEVELS = 5

WOMEN = (
    *("Anna", "Eva", "Lisa", "Maria", "Nina", "Olga", "Rosa", "Sara", "Tina", "Vera", "Emma", "Julia", "Kate"),
    *("Laura", "Mia", "Nora", "Paula", "Ruth", "Sofia", "Zoe"),
)
MEN = (
    *("Adam", "Ben", "Carl", "David", "Erik", "Felix", "George", "Hugo", "Ivan", "Jack", "Leo", "Max", "Nick"),
    *("Oscar", "Paul", "Peter", "Sam", "Tom", "Victor", "Will"),
)
PEOPLE = WOMEN + MEN
CITIES = (
    *("Paris", "London", "Rome", "Berlin", "Oslo", "Madrid", "Vienna", "Athens", "Cairo", "Tokyo", "Delhi", "Lima"),
    *("Boston", "Dublin", "Prague", "Lisbon"),
)
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "orange", "pink", "grey")
ANIMALS = ("cat", "dog", "horse", "bird", "fish", "rabbit", "mouse", "duck", "goat", "frog", "sheep", "cow")
FRUITS = ("apple", "pear", "banana", "orange", "lemon", "plum", "cherry", "grape")
FOODS = ("bread", "rice", "soup", "cake", "cheese", "pasta", "salad", "fish", "pizza", "eggs")
JOBS = ("teacher", "doctor", "baker", "farmer", "driver", "writer", "painter", "cook", "nurse", "pilot", "singer")
THINGS = ("book", "key", "ball", "lamp", "cup", "box", "coin", "hat", "map", "pen", "bag", "clock", "phone", "chair")
ROOMS = ("kitchen", "garden", "office", "garage", "bedroom", "library", "hall", "attic")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)


def rows(domain: str, make: Callable[[Random, int], Row], count: int, seed: int, level: int) -> Iterator[Row]:
    """`count` rows, each from a seed of its own, so that a larger count only appends.

    Raises CascadeError for a level outside 1 to 5.
    """
    if not 1 <= level <= LEVELS:
        raise CascadeError(f"{domain}: level {level} does not exist; choose 1 to {LEVELS}")
    return (
        {"id": f"{domain}-{seed}-{level}-{index}", "domain": domain, "level": level}
        | make(Random(derive_seed("corpus", domain, seed, level, index)), level)
        for index in range(count)
    )


def prompt(text: str, tools: list[dict] | None = None) -> dict[str, Any]:
    """The part of a row that asks."""
    params: dict[str, Any] = {"input": [{"role": "user", "content": text}]}
    if tools:
        params["tools"] = tools
    return {"responses_create_params": params}


def a(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def plural(word: str) -> str:
    if word in ("fish", "sheep"):
        return word
    if word == "mouse":
        return "mice"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def joined(items: list[str] | tuple[str, ...]) -> str:
    """`x, y and z`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
