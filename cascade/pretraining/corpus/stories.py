"""Mini stories in plain English, in which people, places and things stay what they were."""

from collections.abc import Iterator
from random import Random

from cascade.chat import Row
from cascade.environments.synthetic.story_world import (
    ANIMALS,
    CITIES,
    COLOURS,
    DAYS,
    FOODS,
    JOBS,
    PEOPLE,
    ROOMS,
    THINGS,
    WOMEN,
    a,
    rows,
)

FEELINGS = ("happy", "sad", "tired", "angry", "glad", "afraid", "proud", "calm")
WEATHER = ("It was a cold day.", "The sun was warm.", "It rained.", "Snow was on the road.", "The wind was strong.")

STARTS = (
    "On {day} {hero} was in the {room}.",
    "{hero} was {job_a} in {city}.",
    "Once there was {job_a} with the name {hero}.",
    "It was {day}, and {hero} was {feeling}.",
    "{hero} lived in {city} with {animal_a}.",
)
PLOTS: tuple[tuple[str, ...], ...] = (
    (
        "{He} could not find the {colour} {thing}. | The {colour} {thing} was not there any more.",
        "{hero} looked in the {room2} and in the {room3}. | {He} asked {friend} for help.",
        "Then {friend} found the {thing} under the bed in the {room3}. | At last it was in the {room3}, behind a door.",
        "{hero} was very glad to have the {thing} back. | 'Thank you!' said {hero}.",
    ),
    (
        "{He} wanted to eat {food}, but there was none. | There was no {food} in the house.",
        "So {hero} went to the shop with {friend}. | {He} took a bag and walked to the market.",
        "They paid {n} coins for the {food}. | The {food} cost {n} coins.",
        "At home they ate the {food} together. | Dinner was good, and nobody was hungry any more.",
    ),
    (
        "{He} saw a small {animal2} in the rain. | A small {animal2} sat at the door.",
        "The {animal2} was wet and afraid. | It had nothing to eat.",
        "{hero} gave it some {food} and a warm place. | {He} took the {animal2} into the {room2}.",
        "Since then the {animal2} lives with {hero}. | The {animal2} and {hero} became friends.",
    ),
    (
        "{friend} wrote a letter to {hero}. | A letter from {friend} came in the morning.",
        "'Come to {city2} on {day2},' it said. | It said: 'I miss you. Come to {city2}!'",
        "{hero} took the train to {city2}. | The way to {city2} was long, but {hero} was not tired.",
        "{friend} was at the station with {animal_a}. | They talked all night and drank tea.",
    ),
    (
        "{friend} and {hero} both wanted the {colour} {thing}. | There was only one {thing} for {hero} and {friend}.",
        "'It is mine!' said {friend}. | 'I had it first,' said {hero}.",
        "Then {hero} had an idea: one has it today, the other tomorrow. | So they took turns.",
        "Now both were happy. | After that they were never angry about the {thing} again.",
    ),
    (
        "{He} wanted to learn to swim. | {He} could not swim and was afraid of the water.",
        "{friend} showed {him} how. | Every {day2} {friend} went to the lake with {him}.",
        "At first it was hard. | For {n} weeks it did not work.",
        "In the end {hero} could swim to the other side. | Then one day {he} swam, and {friend} was proud.",
    ),
    (
        "{hero} had {n} coins. | In the box there were {n} coins.",
        "{He} gave {m} of them to {friend}. | {m} of the coins went to {friend}.",
        "Then {hero} had {rest} coins. | So {rest} coins were left.",
        "{friend} bought {food} for the {m} coins. | With the rest {he} bought {thing_a}.",
    ),
)
ENDS = (
    "{hero} went to bed {feeling2}.",
    "It was a good day.",
    "{hero} never forgot it.",
    "And that was the end of it.",
    "Where was {hero}? In {city}, of course.",
)


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with `text`: one plot up to level 2, two with the same people from level 3."""
    return rows("stories", _row, count, seed, level)


def _row(rng: Random, level: int) -> Row:
    hero, friend = rng.sample(PEOPLE, 2)
    woman = hero in WOMEN
    sentences = [rng.choice(STARTS)] if level == 1 else [rng.choice(STARTS), rng.choice(WEATHER)]
    for plot in rng.sample(PLOTS, 1 if level < 3 else 2):
        sentences += [rng.choice(step.split(" | ")) for step in plot]
    sentences.append(rng.choice(ENDS))
    room, room2, room3 = rng.sample(ROOMS, 3)
    city, city2 = rng.sample(CITIES, 2)
    animal, animal2 = rng.sample(ANIMALS, 2)
    thing = rng.choice(THINGS)
    n = rng.randint(5, 5 + 5 * level)
    m = rng.randint(2, n - 2)
    slots = {
        "hero": hero,
        "friend": friend,
        "He": "She" if woman else "He",
        "he": "she" if woman else "he",
        "him": "her" if woman else "him",
        "room": room,
        "room2": room2,
        "room3": room3,
        "city": city,
        "city2": city2,
        "animal_a": a(animal),
        "animal2": animal2,
        "job_a": a(rng.choice(JOBS)),
        "day": rng.choice(DAYS),
        "day2": rng.choice(DAYS),
        "colour": rng.choice(COLOURS),
        "thing": thing,
        "thing_a": a(thing),
        "food": rng.choice(FOODS),
        "feeling": rng.choice(FEELINGS),
        "feeling2": rng.choice(FEELINGS),
        "n": n,
        "m": m,
        "rest": n - m,
    }
    return {"text": " ".join(sentence.format(**slots) for sentence in sentences)}
