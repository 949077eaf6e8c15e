"""The nano judge: a reward model in miniature that speaks the interface of the large one (`PreferenceJudge`).

It prefers replies that are helpful, on topic, polite and not padded. It knows the nano world's sentences
(`topics`), so it is cheap and always of one mind. A reply is read sentence by sentence, and each sentence
is an idea for what was asked, with the user's own details in it; or a courtesy; or the answer to the condition that
the user stated; or no help at all. Repetitions, padding, other topics, wrong details and gibberish are no help.
It stands here, not in `cascade.judges`, because all it knows is this environment's world.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from cascade.chat import Message
from cascade.environments.human_preference.tasks import COURTESY
from cascade.environments.human_preference.topics import CLOSINGS, CONDITIONS, FAMILY, MORE, TOPICS
from cascade.environments.synthetic.story_world import ANIMALS, CITIES, DAYS, FOODS, PEOPLE, THINGS
from cascade.judges import Comparison, JudgeError

IDEAS_WANTED, MORE_IDEAS_WANTED = 2, 1
"""In reply to a request, and to a question for more."""
SHORT_IS_WORTH = 0.25
"""Of an idea: what somebody says who does not care."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_RUDE = re.compile(
    r"\b(stupid|idiots?|dumb|fools?|shut up|go away|nobody cares|i do not care|boring|hate you|useless|annoying)\b",
    re.IGNORECASE,
)
_FILLERS = {"family": FAMILY, "day": DAYS, "name": PEOPLE, "name2": PEOPLE, "city": CITIES, "thing": THINGS,
            "animal": ANIMALS, "food": FOODS}  # fmt: skip
_CLOSINGS = frozenset(CLOSINGS)

Slots = dict[str, str]


@dataclass(frozen=True)
class Request:
    """What is asked for, as the judge understands it."""

    topic: int
    slots: tuple[tuple[str, str], ...]
    """The user's details: slot, value."""
    conditions: tuple[str, ...]
    """Sentences that answer the conditions which the user stated."""
    said: frozenset[str]
    """Sentences of the assistant's earlier replies."""
    wanted: int
    """Ideas."""


@dataclass(frozen=True)
class Reading:
    """What a reply is worth: `score` from 1 to 5."""

    score: float
    reasons: str


class NanoJudge:
    """Deterministic, and blind to which response comes first."""

    def compare(self, messages: Sequence[Message], pairs: Sequence[tuple[str, str]]) -> list[Comparison | JudgeError]:
        request = understand(messages)
        if request is None:
            error = JudgeError("unknown_request", "the nano judge knows only the requests that its environment makes")
            return [error] * len(pairs)
        return [_compare(read_reply(request, first), read_reply(request, second)) for first, second in pairs]


def _compare(first: Reading, second: Reading) -> Comparison:
    # A lead of 4 points, the largest there is, is `much better`.
    ranking = 3.5 - (first.score - second.score) * 2.5 / 4
    return Comparison(first.score, second.score, ranking, f"1: {first.reasons}. 2: {second.reasons}.")


def understand(messages: Sequence[Message]) -> Request | None:
    """The request of a conversation of the nano world; None for any other."""
    users = [str(message["content"]) for message in messages if message["role"] == "user"]
    if not users or messages[-1]["role"] != "user":
        return None
    # The longest, because one question can be the beginning of another.
    found = [
        (match.end() - match.start(), topic, _details(match))
        for topic in range(len(TOPICS))
        for pattern in _patterns(topic, "asks")
        if (match := pattern.search(users[0]))
    ]
    if not found or (len(users) > 1 and users[-1] not in MORE):
        return None
    _, topic, slots = max(found, key=lambda one: one[0])
    said = [s for m in messages if m["role"] == "assistant" for s in sentences(str(m["content"]))]
    return Request(
        topic,
        tuple(sorted(slots.items())),
        tuple(answer for condition, answer in CONDITIONS if any(condition in text for text in users)),
        frozenset(said),
        MORE_IDEAS_WANTED if len(users) > 1 else IDEAS_WANTED,
    )


@lru_cache(maxsize=4096)
def read_reply(request: Request, text: str) -> Reading:
    """A reply's worth: 1 + 4 · (share of sentences that help) · (¾ ideas + ⅛ opening + ⅛ closing), ideas from 0 to 1,
    the courtesies 0 or 1; a stated condition takes a fifth of all three. Rude or empty replies: 1.

    A closing must count for something: if it did not, length control alone would decide about it, and a small policy
    unlearns more with it than the closing.
    """
    if _RUDE.search(text):
        return Reading(1.0, "rude")
    found = sentences(text)
    if not found:
        return Reading(1.0, "empty")
    slots = dict(request.slots)
    ideas, short, opens, closes, idle = 0, False, False, False, 0
    heard: set[str] = set()
    seen = set(request.said)
    for sentence in found:
        if sentence in seen:
            idle += 1
        elif _says(request.topic, "ideas", sentence, slots):
            ideas += 1
        elif sentence == COURTESY or _says(request.topic, "openings", sentence, slots):
            opens = True
        elif sentence in _CLOSINGS:
            closes = True
        elif sentence in request.conditions:
            heard.add(sentence)
        elif _says(request.topic, "short", sentence, slots):
            short = True
        else:
            idle += 1
        seen.add(sentence)
    helpful = min(max(ideas, SHORT_IS_WORTH * short) / request.wanted, 1.0)
    worth = 0.75 * helpful + 0.125 * (opens + closes)
    if request.conditions:
        worth = 0.8 * worth + 0.2 * len(heard) / len(request.conditions)
    kind = ("not kind", "kind", "very kind")[opens + closes]
    reasons = f"{ideas} of {request.wanted} ideas, {kind}, {idle} idle of {len(found)}"
    return Reading(1 + 4 * (1 - idle / len(found)) * worth, reasons)


def sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def _says(topic: int, part: str, sentence: str, slots: Slots) -> bool:
    """Whether the sentence is one of this part of the topic, and its details are the user's."""
    for pattern in _patterns(topic, part):
        if match := pattern.fullmatch(sentence):
            return all(slots.get(slot, value) == value for slot, value in _details(match).items())
    return False


def _details(match: re.Match[str]) -> Slots:
    return {slot: value.lower() for slot, value in match.groupdict().items()}


@cache
def _patterns(topic: int, part: str) -> list[re.Pattern[str]]:
    texts = getattr(TOPICS[topic], part)
    return [_pattern(text) for text in ([texts] if isinstance(texts, str) else texts)]


def _pattern(template: str) -> re.Pattern[str]:
    """Of a text with slots: `{thing_a}` is an article and a thing, a slot that comes again has the same value."""
    pattern, seen = "", set()
    for i, part in enumerate(re.split(r"\{(\w+)\}", template)):
        if i % 2 == 0:
            pattern += re.escape(part)
            continue
        slot = part.lower().removesuffix("_a")
        pattern += "an? " if part.endswith("_a") else ""
        pattern += f"(?P={slot})" if slot in seen else f"(?P<{slot}>{'|'.join(_FILLERS[slot])})"
        seen.add(slot)
    return re.compile(pattern, re.IGNORECASE)
