"""The small English of the nano tasks: about 300 words, shared by all topics, and the sentences they make.

A pattern is a sentence without its full stop. `{S}` is the subject, the slots below are filled from WORDS; a
slot with a number takes a word of the same class. `{when}` is a time phrase that no constraint asks about.
"""

import re
from dataclasses import dataclass
from functools import cache
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS: dict[str, tuple[str, ...]] = {
    "adj": _words(
        "small big quick slow warm cold bright dark soft hard old new quiet loud kind strong fresh sweet light heavy "
        "clean calm gentle simple pretty wild round tall long short happy plain smooth thin wide safe dry red blue "
        "green white black brown gold"
    ),
    "place": _words(
        "river hill house road garden lake bridge tree field barn wall sea street window door kitchen forest park "
        "market school farm village beach tower mill station church shop cave island"
    ),
    "thing": _words(
        "music water milk honey apples bread stones leaves flowers books songs games stories clouds stars sand grass "
        "fish seeds nuts boxes shoes hats coins letters pictures cups toys tea corn"
    ),
    "verb": _words("run jump sleep swim sing rest wait walk play work dance climb hide help read talk laugh travel"),
}
WHEN = (
    "in the morning", "at night", "at noon", "in spring", "in summer", "in winter", "in autumn", "every day",
    "after lunch", "before dinner", "on Sunday", "on cold days", "all year",
)  # fmt: skip
FAMILY = ("mother", "father", "sister", "brother", "uncle", "friend", "neighbor", "teacher")
BLANKS = (
    "Ask [name] about it", "I saw it in [place]", "It happened on [date]", "The answer is in [city]",
    "It costs [number] coins", "Call [phone] to know more", "[name] told me about it", "We talked until [time]",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of topic: its nouns, how a request names one, its subjects, and what can be said of it."""

    nouns: tuple[str, ...]
    named: tuple[str, ...]
    subjects: tuple[str, ...]
    """First and later mentions; `{n}` is the noun."""
    patterns: tuple[str, ...]
    requests: tuple[str, ...] = ()


_OF_ALL = ("{S} is {adj}", "{S} is {adj} and {adj2}", "{S} is {adj}, {adj2} and {adj3}", "{S} is very {adj}")
_THING_SUBJECTS = ("The {n}", "It", "It", "This {n}")

KINDS: dict[str, Kind] = {
    "animal": Kind(
        _words("fox dog cat horse bird rabbit sheep duck goat mouse frog owl wolf cow bear pig"),
        ("a {n}", "the {n}", "a {n} you know", "a little {n}"),
        (*_THING_SUBJECTS, "This animal"),
        (
            "{S} lives near the {place}", "{S} likes {thing}", "{S} can {verb}", "{S} likes to {verb} {when}",
            "{When}, {s} likes to {verb}", "{S} has {adj} eyes", "{S} often finds {thing} near the {place}",
        ),
        ("What does a {n} do all day?", "What is a {n} like?"),
    ),
    "place": Kind(
        _words("park beach farm village market school forest garden harbor city museum island"),
        ("the {n}", "a {n} near here", "your favorite {n}", "a {n}"),
        (*_THING_SUBJECTS, "This place"),
        (
            "{S} is near the {place}", "People {verb} there", "You can see {thing} there",
            "{When}, people {verb} there", "There is a {adj} {place} beside it", "Many people go there {when}",
            "{S} sells {thing}", "It is a good place to {verb}",
        ),
        ("What can people do at the {n}?", "What is the {n} like?"),
    ),
    "food": Kind(
        _words("soup bread cake rice pie salad cheese pizza tea pasta jam butter"),
        ("{n}", "good {n}", "the {n} you like", "{n} from home"),
        (*_THING_SUBJECTS, "This food"),
        (
            "{S} tastes {adj}", "We eat it {when}", "{S} goes well with {thing}",
            "My {family} sells it near the {place}", "{When}, we eat it and {verb}",
            "People {verb} after they eat it", "My {family} makes {adj} {n}",
        ),
        ("Why do people like {n}?", "How does {n} taste?"),
    ),
    "tool": Kind(
        _words("hammer knife rope ladder lamp broom shovel pencil clock basket bucket needle"),
        ("a {n}", "the {n}", "an old {n} at home", "a useful {n}"),
        (*_THING_SUBJECTS, "This tool"),
        (
            "{S} helps us {verb}", "I keep it near the {place}", "My {family} uses it {when}",
            "{S} is good for {thing}", "{When}, my {family} cleans it", "{S} has a {adj} handle",
            "You can buy it at the {place}",
        ),
        ("What is a {n} for?", "When do people use a {n}?"),
    ),
    "weather": Kind(
        _words("rain snow wind sun storm fog frost heat"),
        ("the {n}", "the {n} today", "the {n} in our town", "a day with {n}"),
        (*_THING_SUBJECTS, "This weather"),
        (
            "{S} comes {when}", "{S} makes the {place} {adj}", "People {verb} when it comes",
            "{S} moves over the {place}", "{When}, {s} covers the {place}", "{S} is bad for {thing}",
            "My {family} likes to {verb} in it", "On such days people {verb}",
        ),
        ("What is the {n} like?", "What do people do when the {n} comes?"),
    ),
    "person": Kind(
        _words("Anna Mia Sara Nina Eva Rosa Lily Emma"),
        ("{n}", "the day of {n}", "{n} and her day", "a day in the life of {n}"),
        ("{n}", "She", "She", "{n}"),
        (
            "{S} walks to the {place}", "{S} sees {thing}", "{S} likes to {verb} {when}", "{S} feels {adj}",
            "{When}, {s} likes to {verb}", "{S} buys {thing} near the {place}", "Her {family} is {adj}",
        ),
        ("What does {n} do all day?", "How is the day of {n}?"),
    ),
    "vehicle": Kind(
        _words("train bus boat bike truck plane car ship wagon sled"),
        ("a {n}", "the {n}", "the {n} in our town", "an old {n}"),
        (*_THING_SUBJECTS, "This {n}"),
        (
            "{S} goes to the {place}", "{S} carries {thing}", "We ride it {when}", "People {verb} while they ride it",
            "{When}, {s} stops near the {place}", "{S} has {adj} seats", "My {family} washes it near the {place}",
            "In it you can {verb}",
        ),
        ("Where does the {n} go?", "What is good about a {n}?"),
    ),
    "plant": Kind(
        _words("rose tree bush vine oak pine lily tulip fern cactus"),
        ("a {n}", "the {n}", "a {n} in the yard", "a young {n}"),
        (*_THING_SUBJECTS, "This plant"),
        (
            "{S} grows near the {place}", "{S} has {adj} leaves", "{S} needs light {when}", "Birds {verb} near it",
            "{When}, {s} looks {adj}", "My {family} gives it {thing}", "Children {verb} beside it",
            "Under it you can {verb}",
        ),
        ("How does a {n} grow?", "What is a {n} like?"),
    ),
}  # fmt: skip

REQUESTS = (
    "Describe {t}.", "Tell me about {t}.", "Say something about {t}.", "Write a short note about {t}.",
    "Write about {t}.", "Introduce {t} to a child.", "Give a short description of {t}.",
    "What can you say about {t}?", "Please describe {t}.", "I want to know about {t}.",
    "Talk about {t} for a moment.", "Write a few words on {t}.", "Can you tell me about {t}?",
    "Help me write about {t}.",
)  # fmt: skip

_SLOT = re.compile(r"\{(\w+?)\d?\}")


@dataclass(frozen=True)
class Sentence:
    text: str
    keys: tuple[str, ...]
    """The words in its slots: what it says, in short."""


@cache
def patterns(kind: str, slot: str, last: bool) -> tuple[str, ...]:
    """What can be said of this kind of topic with such a word, or with such a word at the end."""
    known = (*_OF_ALL, *KINDS[kind].patterns)
    return tuple(p for p in known if (p.endswith(f"{{{slot}}}") if last else f"{{{slot}}}" in p))


def class_of(word: str) -> str:
    return next(slot for slot, words in WORDS.items() if word in words)


def lower_first(text: str, noun: str) -> str:
    """The text as it stands inside a sentence: names, `I` and placeholders keep their letters."""
    return text if text.startswith((noun, "I ", "[")) else text[0].lower() + text[1:]


def realise(
    pattern: str, subject: str, noun: str, rng: Random, fixed: dict[str, str], avoid: frozenset[str]
) -> Sentence:
    """The pattern with its slots filled: one class's first slot by `fixed`, the rest drawn outside `avoid`."""
    used: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name, slot = match[0][1:-1], match[1]
        if name == "S":
            return subject
        if name == "s":
            return lower_first(subject, noun)
        if name == "n":
            return noun
        if name == "family":
            return rng.choice(FAMILY)
        if name.lower() == "when":
            when = rng.choice(WHEN)
            return when[0].upper() + when[1:] if name == "When" else when
        word = (
            fixed[name] if name in fixed else rng.choice([w for w in WORDS[slot] if w not in avoid and w not in used])
        )
        used.append(word)
        return word

    return Sentence(_SLOT.sub(fill, pattern), tuple(used))
