"""Nano tasks: questions on documents of many short facts.

One needle, several needles, counts, lists, sums, comparisons, chains of two facts, and facts that a later sentence
takes back. Everything else in a document, other people's facts of the same form among it, is a distractor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from cascade.chat import Row
from cascade.environments.long_context.wording import ASKS, FILLER, OPENINGS, SAYS, VALUES, WHO
from cascade.environments.synthetic.story_world import (
    CITIES,
    DAYS,
    FRUITS,
    PEOPLE,
    THINGS,
    a,
    joined,
    plural,
    prompt,
    rows,
)

SENTENCES = {1: 14, 2: 26, 3: 45, 4: 70, 5: 105}
"""How many sentences a document has, by level."""


@dataclass
class World:
    """What the document says, and in which sentence."""

    people: list[str]
    facts: dict[tuple[str, str], str] = field(default_factory=dict)
    sentences: dict[tuple[str, str], str] = field(default_factory=dict)
    stores: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many of a thing (plural) a person has."""
    store_sentences: dict[tuple[str, str], str] = field(default_factory=dict)

    def holders(self, kind: str, value: str) -> list[str]:
        return [person for person in self.people if self.facts.get((person, kind)) == value]


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    needles: tuple[str, ...]
    steps: str = ""
    """What follows from the needles, where the answer is not in them as it stands."""


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with `question_type`, `expected_answer` and `needles`, the sentences that it rests on.

    Raises CascadeError for a level outside 1 to 5.
    """
    return rows("long_context", _row, count, seed, level)


def _row(rng: Random, level: int) -> Row:
    question, sentences = _document(rng, level)
    paragraphs: list[str] = []
    while sentences:
        size = rng.randint(4, 8)
        paragraphs.append(" ".join(sentences[:size]))
        sentences = sentences[size:]
    text = "\n".join(paragraphs)
    opening = rng.choice(OPENINGS)
    shape = rng.choice(("{o}\n\n{t}\n\n{q}", "{o} {q}\n\n{t}", "{t}\n\nQuestion: {q}", "{o}\n\n{t}\n\nQuestion: {q}"))
    reasoning = "The text says: " + " ".join(question.needles) + (f" {question.steps}" if question.steps else "")
    return prompt(shape.format(o=opening, t=text, q=question.text)) | {
        "environment": "long_context",
        "question_type": question.kind,
        "expected_answer": question.answer,
        "needles": list(question.needles),
        "demonstration": {"reasoning": reasoning, "content": question.answer, "tool_calls": []},
    }


def _document(rng: Random, level: int) -> tuple[Question, list[str]]:
    makers = [_one, _holder, _store, _two]
    if level > 1:
        makers += [_count, _list, _sum, _older]
    if level > 2:
        makers += [_count] * 3 + [_change] * 4 + [_older] * 2 + [_chain]
    make = rng.choice(makers)
    # Not every document has what the question needs; drawing again keeps the questions in proportion.
    while True:
        size = SENTENCES[level]
        filler = [rng.choice(FILLER) for _ in range(size // 5)]
        world = World(rng.sample(PEOPLE, min(3 + size // 5, 24)))
        sentences: list[str] = []
        while len(sentences) < size - len(filler):
            sentences.append(_tell(rng, world))
        sentences += filler
        rng.shuffle(sentences)
        question = make(rng, world, sentences)
        if question is not None:
            return question, sentences


def _tell(rng: Random, world: World) -> str:
    """One more fact as a sentence; the world remembers both."""
    while True:
        person = rng.choice(world.people)
        kind = rng.choice((*SAYS, "store"))
        if kind == "store":
            thing = plural(rng.choice((*FRUITS, *THINGS)))
            if (person, thing) not in world.stores:
                number = rng.randint(2, 20)
                world.stores[person, thing] = number
                text = rng.choice(("{} has {} {}.", "{} bought {} {}.", "{} owns {} {}.")).format(person, number, thing)
                world.store_sentences[person, thing] = text
                return text
        elif (person, kind) not in world.facts:
            value = str(rng.randint(6, 90)) if kind == "age" else rng.choice(DAYS if kind == "day" else VALUES[kind])
            world.facts[person, kind] = value
            text = rng.choice(SAYS[kind]).format(person, _shown(kind, value))
            world.sentences[person, kind] = text
            return text


def _shown(kind: str, value: str) -> str:
    return a(value) if kind in ("job", "pet") else value


def _one(rng: Random, world: World, sentences: list[str]) -> Question | None:
    person, kind = rng.choice(list(world.facts))
    value = world.facts[person, kind]
    ask = rng.choice(ASKS[kind]).format(person)
    return Question("needle", ask, value, (world.sentences[person, kind],))


def _holder(rng: Random, world: World, sentences: list[str]) -> Question | None:
    person, kind = rng.choice(list(world.facts))
    value = world.facts[person, kind]
    if kind not in WHO or len(world.holders(kind, value)) != 1:
        return None
    ask = f"W{WHO[kind].format(_shown(kind, value))[1:]}?"
    return Question("needle", ask, person, (world.sentences[person, kind],))


def _store(rng: Random, world: World, sentences: list[str]) -> Question | None:
    if not world.stores:
        return None
    person, thing = rng.choice(list(world.stores))
    ask = f"How many {thing} does {person} have?"
    return Question("needle", ask, str(world.stores[person, thing]), (world.store_sentences[person, thing],))


def _two(rng: Random, world: World, sentences: list[str]) -> Question | None:
    kind = rng.choice(list(VALUES))
    known = [person for person in world.people if (person, kind) in world.facts]
    if len(known) < 2:
        return None
    first, second = rng.sample(known, 2)
    ask = {
        "city": f"Where do {first} and {second} live?",
        "job": f"What are the jobs of {first} and {second}?",
        "pet": f"Which pets do {first} and {second} have?",
        "colour": f"Which colours do {first} and {second} like?",
        "food": f"What do {first} and {second} like to eat?",
    }[kind]
    answer = f"{world.facts[first, kind]} and {world.facts[second, kind]}"
    return Question("needles", ask, answer, (world.sentences[first, kind], world.sentences[second, kind]))


def _same(rng: Random, world: World, sentences: list[str]) -> tuple[str, str, list[str], tuple[str, ...]] | None:
    """A kind, a value, who has it in the order of the text, and the sentences that say so."""
    person, kind = rng.choice(list(world.facts))
    if kind not in WHO:
        return None
    value = world.facts[person, kind]
    people = sorted(world.holders(kind, value), key=lambda who: sentences.index(world.sentences[who, kind]))
    return kind, value, people, tuple(world.sentences[who, kind] for who in people)


def _count(rng: Random, world: World, sentences: list[str]) -> Question | None:
    same = _same(rng, world, sentences)
    if same is None or len(same[2]) > 6 or (len(same[2]) == 1 and rng.random() < 0.7):
        return None
    kind, value, people, needles = same
    what = WHO[kind].format(_shown(kind, value)).removeprefix("who ")
    ask = f"How many people {_many(what)}?"
    return Question("count", ask, str(len(people)), needles, f"That is {joined(people)}: {len(people)}.")


def _list(rng: Random, world: World, sentences: list[str]) -> Question | None:
    same = _same(rng, world, sentences)
    if same is None or not 1 < len(same[2]) <= 6:
        return None
    kind, value, people, needles = same
    what = WHO[kind].format(_shown(kind, value))
    ask = rng.choice((f"Name everyone {what}.", f"List the people {_many(what)}."))
    return Question("list", ask, joined(people), needles)


def _many(text: str) -> str:
    """The verb for several people."""
    for one, several in (("lives", "live"), ("works", "work"), ("has", "have"), ("likes", "like")):
        text = text.replace(f"{one} ", f"{several} ")
    return text


def _sum(rng: Random, world: World, sentences: list[str]) -> Question | None:
    things = sorted({thing for _, thing in world.stores})
    rng.shuffle(things)
    for thing in things:
        owners = [person for person, what in world.stores if what == thing]
        if len(owners) >= 2:
            first, second = rng.sample(owners, 2)
            x, y = world.stores[first, thing], world.stores[second, thing]
            ask = f"How many {thing} do {first} and {second} have together?"
            needles = (world.store_sentences[first, thing], world.store_sentences[second, thing])
            return Question("sum", ask, str(x + y), needles, f"{x} + {y} = {x + y}.")
    return None


def _older(rng: Random, world: World, sentences: list[str]) -> Question | None:
    known = [person for person in world.people if (person, "age") in world.facts]
    if len(known) < 2:
        return None
    first, second = rng.sample(known, 2)
    x, y = int(world.facts[first, "age"]), int(world.facts[second, "age"])
    if x == y:
        return None
    old = rng.random() < 0.5
    word = "older" if old else "younger"
    answer = first if (x > y) == old else second
    needles = (world.sentences[first, "age"], world.sentences[second, "age"])
    sign = ">" if x > y else "<"
    return Question("compare", f"Who is {word}, {first} or {second}?", answer, needles, f"{x} {sign} {y}.")


def _chain(rng: Random, world: World, sentences: list[str]) -> Question | None:
    """What the person has of whom only another fact is named."""
    person, kind = rng.choice(list(world.facts))
    value = world.facts[person, kind]
    others = [k for k in VALUES if k != kind and (person, k) in world.facts]
    if kind not in WHO or len(world.holders(kind, value)) != 1 or not others:
        return None
    other = rng.choice(others)
    whom = f"the person {WHO[kind].format(_shown(kind, value))}"
    ask = rng.choice(ASKS[other]).format(whom)
    needles = (world.sentences[person, kind], world.sentences[person, other])
    return Question("chain", ask, world.facts[person, other], needles)


def _change(rng: Random, world: World, sentences: list[str]) -> Question | None:
    """A later sentence takes an earlier one back; the question asks for the latest."""
    movers = [person for person in world.people if (person, "city") in world.facts]
    if not movers:
        return None
    person = rng.choice(movers)
    old = world.facts[person, "city"]
    new = rng.choice([city for city in CITIES if city != old])
    first = world.sentences[person, "city"]
    later = f"Then {person} moved to {new}."
    sentences.insert(rng.randint(sentences.index(first) + 1, len(sentences)), later)
    ask = f"Where does {person} live now?"
    return Question("change", ask, new, (first, later), f"So {person} lives in {new} now.")
