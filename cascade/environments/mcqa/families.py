"""Families of nano multiple-choice questions: facts and comparisons of the small world."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from cascade.environments.synthetic import vocabulary as words


@dataclass(frozen=True)
class Question:
    """The reasoning says each option's letter and `notes[i]`. `key` is what the correct option's note ends with, and no
    later one: repeated after the notes, it leads a small model back to the letter before it.
    """

    text: str
    options: list[str]
    correct: int
    notes: list[str]
    key: str
    opening: str = ""


Family = Callable[[Random, int], Question]

BEST = "best"
"""Marks, in the reasoning, an option that is better than all before it."""


def _member(rng: Random, options: int) -> Question:
    category = rng.choice(list(words.CATEGORIES))
    chosen = [(rng.choice(words.CATEGORIES[category]), category)]
    others = [c for c in words.CATEGORIES if c != category]
    while len(chosen) < options:
        other = rng.choice(others)
        word = rng.choice(words.CATEGORIES[other])
        # "orange" is a colour as well as a fruit: two right answers.
        if (word, other) not in chosen and word != "orange":
            chosen.append((word, other))
    if chosen[0][0] == "orange":
        chosen[0] = (words.FRUITS[0], "fruit")
    rng.shuffle(chosen)
    noun = words.a(category)
    text = rng.choice(
        (
            f"Which of these is {noun}?",
            f"Which word names {noun}?",
            f"Find {noun} in the list.",
            f"Which one is {noun}?",
            f"One option is {noun}. Which one?",
            f"Where do you see {noun}?",
            f"Pick the option that is {noun}.",
            f"What in this list is {noun}?",
        )
    )
    correct = [kind for _, kind in chosen].index(category)
    return Question(text, [word for word, _ in chosen], correct, _kinds(chosen), _noun(category))


def _odd_one_out(rng: Random, options: int) -> Question:
    category, other = rng.sample(list(words.CATEGORIES), 2)
    chosen = [
        (word, category) for word in rng.sample([w for w in words.CATEGORIES[category] if w != "orange"], options - 1)
    ]
    chosen.append((rng.choice([w for w in words.CATEGORIES[other] if w != "orange"]), other))
    rng.shuffle(chosen)
    noun, many = words.a(category), words.plural(category)
    text = rng.choice(
        (
            f"Which of these is not {noun}?",
            f"Which word does not name {noun}?",
            f"All but one are {many}. Which one is not?",
            f"Find the option that is not {noun}.",
            f"Which one does not belong with the {many}?",
            f"Which option is something other than {noun}?",
            f"One of these is no {category}. Which one?",
            "Which word does not fit with the others?",
        )
    )
    correct = [kind for _, kind in chosen].index(other)
    return Question(text, [word for word, _ in chosen], correct, _kinds(chosen), _noun(other))


def _city(rng: Random, options: int) -> Question:
    cities = _one_per_country(rng, options)
    correct = rng.randrange(options)
    country = words.CITY_COUNTRY[cities[correct]]
    text = rng.choice(
        (
            f"Which city is in {country}?",
            f"Which of these cities lies in {country}?",
            f"You are in {country}. In which city can you be?",
            f"Find the city in {country}.",
            f"One of these cities belongs to {country}. Which?",
            f"Which place would you find in {country}?",
            f"Name the city of {country}.",
            f"To see {country}, which city do you visit?",
        )
    )
    return Question(text, cities, correct, [f"{city} {words.CITY_COUNTRY[city]}" for city in cities], country)


def _country(rng: Random, options: int) -> Question:
    countries = rng.sample(words.COUNTRIES, options)
    correct = rng.randrange(options)
    city = rng.choice([c for c, country in words.CITY_COUNTRY.items() if country == countries[correct]])
    text = rng.choice(
        (
            f"In which country is {city}?",
            f"Where is the city of {city}?",
            f"{city} is a city in which country?",
            f"Which country has the city {city}?",
            f"To which country does {city} belong?",
            f"You live in {city}. Which country is that?",
            f"Find the country of {city}.",
            f"Which country do you visit to see {city}?",
        )
    )
    return Question(text, countries, correct, countries, countries[correct], f"{city} is in {countries[correct]}.")


def _extreme_number(rng: Random, options: int) -> Question:
    numbers = rng.sample(range(1, 100 if options <= 4 else 1000), options)
    largest = rng.random() < 0.5
    best = max(numbers) if largest else min(numbers)
    word = rng.choice(("largest", "biggest", "greatest", "highest") if largest else ("smallest", "lowest", "least"))
    text = rng.choice(
        (
            f"Which number is the {word}?",
            f"Find the {word} number.",
            f"Which of these numbers is {word}?",
            f"What is the {word} number here?",
            f"Pick the {word} number.",
            f"One number is the {word} of all. Which one?",
            f"Compare the numbers. Which is the {word}?",
            f"Choose the {word} of these numbers.",
        )
    )
    shown = [str(n) for n in numbers]
    return Question(text, shown, numbers.index(best), _best_so_far(shown, numbers, largest), BEST)


def _alphabet(rng: Random, options: int) -> Question:
    pool = words.FRUITS + words.ANIMALS + words.TOOLS + words.FURNITURE + words.VEHICLES + words.INSTRUMENTS
    by_letter: dict[str, str] = {}
    while len(by_letter) < options:
        word = rng.choice(pool)
        by_letter.setdefault(word[0], word)
    chosen = list(by_letter.values())
    rng.shuffle(chosen)
    first = rng.random() < 0.5
    best = min(chosen) if first else max(chosen)
    place = "first" if first else "last"
    text = rng.choice(
        (
            f"Which word comes {place} in the alphabet?",
            f"Which word is {place} in a dictionary?",
            f"Sort the words from A to Z. Which is {place}?",
            f"In alphabetical order, which word is {place}?",
            f"Which of these words stands {place} from A to Z?",
            f"Find the word that is {place} by its letters.",
            f"Order the words by the alphabet. Which one is {place}?",
            f"Pick the word that comes {place} from A to Z.",
        )
    )
    initials = [word[0] for word in chosen]
    shown = [f"{word} {initial}" for word, initial in zip(chosen, initials, strict=True)]
    return Question(text, chosen, chosen.index(best), _best_so_far(shown, [ord(x) for x in initials], not first), BEST)


def _opposite(rng: Random, options: int) -> Question:
    pairs = rng.sample(words.OPPOSITES, options)
    side = rng.randrange(2)
    correct = rng.randrange(options)
    word = pairs[correct][1 - side]
    text = rng.choice(
        (
            f"What is the opposite of {word}?",
            f"Which word means the opposite of {word}?",
            f"Something is not {word}. It is the opposite. Which word?",
            f"Find the opposite of {word}.",
            f"{word.capitalize()} is the opposite of which word?",
            f"Which word is the reverse of {word}?",
            f"Pick the word that is opposite to {word}.",
            f"What do you call the opposite of {word}?",
        )
    )
    chosen = [pair[side] for pair in pairs]
    return Question(text, chosen, correct, [f"{pair[side]} {pair[1 - side]}" for pair in pairs], word)


def _sum(rng: Random, options: int) -> Question:
    top = {3: 20, 4: 50}.get(options, 100)
    left, right = rng.randrange(1, top), rng.randrange(1, top)
    minus = rng.random() < 0.4
    if minus:
        left, right = max(left, right), min(left, right)
    result = left - right if minus else left + right
    near = [n for n in range(max(0, result - 12), result + 13) if n != result]
    chosen = [result, *rng.sample(near, options - 1)]
    rng.shuffle(chosen)
    sign, verb = ("-", "minus") if minus else ("+", "plus")
    text = rng.choice(
        (
            f"What is {left} {sign} {right}?",
            f"How much is {left} {sign} {right}?",
            f"Work out {left} {sign} {right}.",
            f"{left} {verb} {right} is what?",
            f"Which number equals {left} {sign} {right}?",
            f"Find {left} {verb} {right}.",
            f"What do you get for {left} {sign} {right}?",
            f"Which option is {left} {verb} {right}?",
        )
    )
    tens, units = right // 10 * 10, right % 10
    steps = f"{left} {sign} {right} = {result}."
    if tens and units:
        middle = left - tens if minus else left + tens
        steps = f"{left} {sign} {tens} = {middle}, {middle} {sign} {units} = {result}."
    correct = chosen.index(result)
    shown = [str(n) for n in chosen]
    return Question(text, shown, correct, shown, str(result), steps)


def _calendar(rng: Random, options: int) -> Question:
    names, unit = (words.DAYS, "day") if options <= 6 and rng.random() < 0.6 else (words.MONTHS, "month")
    step = rng.randint(1, 1 if options == 3 else 3)
    after = rng.random() < 0.6
    start = rng.randrange(len(names))
    walk = [names[(start + (i if after else -i)) % len(names)] for i in range(step + 1)]
    result = walk[-1]
    chosen = [result, *rng.sample([n for n in names if n != result], options - 1)]
    rng.shuffle(chosen)
    far = f"{step} {unit}{'s' if step > 1 else ''}"
    way = "after" if after else "before"
    text = rng.choice(
        (
            f"Which {unit} is {far} {way} {walk[0]}?",
            f"What {unit} comes {far} {way} {walk[0]}?",
            f"Count {far} {'forward' if after else 'back'} from {walk[0]}. Where do you end?",
            f"It is {walk[0]}. Which {unit} {'will it be in ' + far if after else 'was it ' + far + ' ago'}?",
            f"{far.capitalize()} {way} {walk[0]} is which {unit}?",
            f"Find the {unit} that is {far} {way} {walk[0]}.",
            f"Start at {walk[0]} and go {far} {'on' if after else 'back'}. Which {unit} is it?",
            f"Name the {unit} {far} {way} {walk[0]}.",
        )
    )
    correct = chosen.index(result)
    return Question(text, chosen, correct, chosen, result, f"{', '.join(walk)}.")


def _longest(rng: Random, options: int) -> Question:
    pool = words.FRUITS + words.VEGETABLES + words.ANIMALS + words.CLOTHES + words.VEHICLES + words.INSTRUMENTS
    while True:
        chosen = rng.sample(pool, options)
        lengths = [len(word) for word in chosen]
        longest = rng.random() < 0.5
        best = max(lengths) if longest else min(lengths)
        if lengths.count(best) == 1:
            break
    word = "most" if longest else "fewest"
    text = rng.choice(
        (
            f"Which word has the {word} letters?",
            f"Find the word with the {word} letters.",
            f"Count the letters. Which word has the {word}?",
            f"Which is the {'longest' if longest else 'shortest'} word?",
            f"Pick the {'longest' if longest else 'shortest'} word.",
            f"Which of these words is the {'longest' if longest else 'shortest'}?",
            f"One word has the {word} letters. Which one?",
            f"By number of letters, which word is {'longest' if longest else 'shortest'}?",
        )
    )
    shown = [f"{w} {n}" for w, n in zip(chosen, lengths, strict=True)]
    return Question(text, chosen, lengths.index(best), _best_so_far(shown, lengths, longest), BEST)


def _kinds(chosen: list[tuple[str, str]]) -> list[str]:
    return [f"{word} {_noun(kind)}" for word, kind in chosen]


def _noun(kind: str) -> str:
    """Without "piece of"."""
    return kind.split()[-1]


def _best_so_far(shown: list[str], values: list[int], largest: bool) -> list[str]:
    """What is shown of each option; those that are better than all before them are marked."""
    notes, kept = [], values[0]
    for i, (text, value) in enumerate(zip(shown, values, strict=True)):
        better = i == 0 or (value > kept if largest else value < kept)
        kept = value if better else kept
        notes.append(f"{text} {BEST}" if better else text)
    return notes


def _one_per_country(rng: Random, count: int) -> list[str]:
    countries = rng.sample(words.COUNTRIES, count)
    return [rng.choice([c for c, country in words.CITY_COUNTRY.items() if country == wanted]) for wanted in countries]


FAMILIES: dict[int, tuple[Family, ...]] = {
    1: (_member, _city, _country, _extreme_number, _opposite, _sum, _calendar),
    2: (_member, _odd_one_out, _city, _country, _extreme_number, _alphabet, _opposite, _sum, _calendar),
    3: (_member, _odd_one_out, _city, _country, _extreme_number, _alphabet, _opposite, _sum, _calendar, _longest),
    4: (_member, _odd_one_out, _city, _extreme_number, _alphabet, _opposite, _sum, _calendar, _longest),
}
