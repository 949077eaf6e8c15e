"""Plain sentences about a small world: kinds, opposites, numbers, days, letters, comparisons."""

from collections.abc import Callable, Iterator
from random import Random

from cascade.chat import Row
from cascade.environments.synthetic.story_world import (
    ANIMALS,
    CITIES,
    COLOURS,
    DAYS,
    FRUITS,
    JOBS,
    MONTHS,
    PEOPLE,
    ROOMS,
    THINGS,
    a,
    joined,
    plural,
    rows,
)

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
OPPOSITES = (
    *(("big", "small"), ("hot", "cold"), ("fast", "slow"), ("old", "new"), ("high", "low"), ("light", "dark")),
    *(("happy", "sad"), ("open", "closed"), ("full", "empty"), ("early", "late"), ("hard", "soft"), ("near", "far")),
    *(("wet", "dry"), ("rich", "poor"), ("strong", "weak"), ("clean", "dirty"), ("loud", "quiet"), ("true", "false")),
    *(("left", "right"), ("up", "down"), ("first", "last"), ("long", "short"), ("day", "night"), ("yes", "no")),
)
PROPERTIES = {
    "red": ("blood", "a cherry", "a rose"),
    "blue": ("the sky", "the sea"),
    "green": ("grass", "a leaf", "a frog"),
    "yellow": ("a lemon", "the sun", "a banana"),
    "white": ("snow", "milk", "salt"),
    "black": ("coal", "the night"),
    "brown": ("wood", "bread"),
    "orange": ("an orange", "fire"),
}
ABILITIES = {
    "cat": "catch mice", "dog": "guard a house", "horse": "run fast", "bird": "fly", "fish": "swim", "rabbit": "jump",
    "mouse": "hide in small holes", "duck": "swim and fly", "goat": "climb hills", "frog": "jump and swim",
    "sheep": "give wool", "cow": "give milk",
}  # fmt: skip
WORK = {
    "teacher": "helps children to learn", "doctor": "helps ill people", "baker": "bakes bread",
    "farmer": "grows food", "driver": "drives a bus", "writer": "writes books", "painter": "paints pictures",
    "cook": "makes dinner", "nurse": "looks after ill people", "pilot": "flies planes", "singer": "sings songs",
}  # fmt: skip
SIZES = ("mouse", "frog", "rabbit", "cat", "dog", "sheep", "cow", "horse")
"""From small to large."""
GROUPS = {
    "animal": ANIMALS,
    "colour": COLOURS,
    "fruit": FRUITS,
    "job": JOBS,
    "city": CITIES,
    "day": DAYS,
    "month": MONTHS,
    "room": ROOMS,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with `text`: a few sentences each, with larger numbers at higher levels."""
    return rows("facts", _row, count, seed, level)


def in_words(number: int) -> str:
    """0 to 999 as words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")
    return f"{ONES[number // 100]} hundred" + (f" and {in_words(number % 100)}" if number % 100 else "")


def _row(rng: Random, level: int) -> Row:
    make = rng.choice(MAKERS)
    sentences = list(dict.fromkeys(make(rng, level) for _ in range(rng.randint(3, 6))))
    if rng.random() < 0.3:
        sentences += [rng.choice(MAKERS)(rng, level) for _ in range(3)]
    return {"text": " ".join(sentences)}


def _kind(rng: Random, level: int) -> str:
    group = rng.choice(list(GROUPS))
    word = rng.choice(GROUPS[group])
    other = rng.choice([name for name in GROUPS if word not in GROUPS[name]])
    members = rng.sample(GROUPS[group], 3)
    subject = f"{a(word)[0].upper()}{a(word)[1:]}" if group in ("animal", "fruit", "room") else word
    if group in ("colour", "job"):
        subject = word.capitalize()
    return rng.choice(
        (
            f"{subject} is {a(group)}.",
            f"{subject} is {a(group)}, not {a(other)}.",
            f"{_up(joined(members))} are {plural(group)}.",
            f"Which of these is {a(group)}: {_mixed(rng, word, other)}? It is {word}.",
            f"What is {word}? It is {a(group)}.",
        )
    )


def _mixed(rng: Random, word: str, other: str) -> str:
    # `orange` is a colour and a fruit.
    words = [word, *rng.sample([w for w in GROUPS[other] if w != "orange"], 2)]
    rng.shuffle(words)
    return " or ".join(words)


def _opposite(rng: Random, level: int) -> str:
    first, second = rng.sample(rng.choice(OPPOSITES), 2)
    return rng.choice(
        (
            f"The opposite of {first} is {second}.",
            f"What is not {first} may be {second}.",
            f"{_up(first)} and {second} are opposites.",
            f"Opposite of {first}? {_up(second)}.",
        )
    )


def _property(rng: Random, level: int) -> str:
    colour = rng.choice(list(PROPERTIES))
    thing = rng.choice(PROPERTIES[colour])
    return rng.choice(
        (
            f"{_up(thing)} is {colour}.",
            f"What colour is {thing}? It is {colour}.",
            f"The colour of {thing} is {colour}.",
        )
    )


def _ability(rng: Random, level: int) -> str:
    animal = rng.choice(list(ABILITIES))
    job = rng.choice(list(WORK))
    return rng.choice(
        (
            f"{_up(a(animal))} can {ABILITIES[animal]}.",
            f"{_up(plural(animal))} can {ABILITIES[animal]}.",
            f"{_up(a(job))} {WORK[job]}.",
            f"Who {WORK[job]}? {_up(a(job))}.",
        )
    )


def _add(rng: Random, level: int) -> str:
    top = 10 * level
    x, y = rng.randint(0, top), rng.randint(0, top)
    low, high = sorted((x, y))
    return rng.choice(
        (
            f"{x} + {y} = {x + y}.",
            f"{high} - {low} = {high - low}.",
            f"{_up(in_words(x))} plus {in_words(y)} is {in_words(x + y)}.",
            f"{_up(in_words(high))} minus {in_words(low)} is {in_words(high - low)}.",
            f"{rng.choice(PEOPLE)} has {x} {plural(rng.choice(FRUITS))} and gets {y} more. Now there are {x + y}.",
        )
    )


def _times(rng: Random, level: int) -> str:
    x, y = rng.randint(0, 6 + level), rng.randint(0, 9)
    return rng.choice(
        (
            f"{x} * {y} = {x * y}.",
            f"{x} times {y} is {x * y}.",
            f"{_up(in_words(x))} times {in_words(y)} is {in_words(x * y)}.",
            f"{(x + 1) * y} / {x + 1} = {y}.",
        )
    )


def _compare(rng: Random, level: int) -> str:
    low, high = sorted(rng.sample(range(10**level if level < 3 else 1000), 2))
    small, large = sorted(rng.sample(range(len(SIZES)), 2))
    return rng.choice(
        (
            f"{high} is greater than {low}.",
            f"{low} is less than {high}.",
            f"{low} < {high}.",
            f"{high} > {low}.",
            f"The larger of {low} and {high} is {high}.",
            f"{_up(a(SIZES[large]))} is larger than {a(SIZES[small])}.",
            f"{_up(a(SIZES[small]))} is smaller than {a(SIZES[large])}.",
        )
    )


def _number(rng: Random, level: int) -> str:
    x = rng.randint(0, 99 if level < 3 else 999)
    return rng.choice(
        (
            f"{x} is {in_words(x)}.",
            f"{_up(in_words(x))} is written {x}.",
            f"{x} is {'even' if x % 2 == 0 else 'odd'}.",
            f"After {x} comes {x + 1}.",
            f"The digits of {x} add up to {sum(map(int, str(x)))}.",
            f"The last digit of {x} is {x % 10}.",
        )
    )


def _calendar(rng: Random, level: int) -> str:
    what, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    index = rng.randrange(len(names))
    after, before = names[(index + 1) % len(names)], names[index - 1]
    steps = rng.randint(2, 3)
    return rng.choice(
        (
            f"After {names[index]} comes {after}.",
            f"Before {names[index]} comes {before}.",
            f"{names[index]} is {what} number {index + 1}.",
            f"{_up(in_words(steps))} {what}s after {names[index]} is {names[(index + steps) % len(names)]}.",
            f"{names[index]} is between {before} and {after}.",
        )
    )


def _alphabet(rng: Random, level: int) -> str:
    index = rng.randrange(25)
    words = rng.sample((*ANIMALS, *FRUITS, *THINGS), 3 if level < 3 else 4)
    return rng.choice(
        (
            f"After the letter {LETTERS[index]} comes {LETTERS[index + 1]}.",
            f"The letter {LETTERS[index]} is number {index + 1}.",
            f"In order: {', '.join(sorted(words))}.",
            f"Sort {', '.join(words)}: {', '.join(sorted(words))}.",
            f"{_up(sorted(words)[0])} comes first of {joined(words)}.",
        )
    )


def _spelling(rng: Random, level: int) -> str:
    word = rng.choice((*ANIMALS, *FRUITS, *THINGS, *COLOURS, *ROOMS))
    letter = rng.choice(word)
    return rng.choice(
        (
            f"{_up(word)} is spelt {'-'.join(word)}.",
            f"The letters of {word}: {' '.join(word)}.",
            f"{_up(word)} has {len(word)} letters.",
            f"{_up(word)} starts with {word[0]} and ends with {word[-1]}.",
            f"{_up(word)} backwards is {word[::-1]}.",
            f"In capital letters {word} is {word.upper()}.",
            f"The letter {letter} is {word.count(letter)} times in {word}.",
        )
    )


def _up(text: str) -> str:
    return text[0].upper() + text[1:]


MAKERS: tuple[Callable[[Random, int], str], ...] = (
    *(_kind, _opposite, _property, _ability, _add, _times, _compare, _number, _calendar, _alphabet, _spelling),
)
