"""Nano conversations: an everyday request, sometimes with a condition, sometimes with an earlier exchange, and replies
of every quality to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from cascade.chat import Message, Row
from cascade.environments.human_preference.topics import (
    CLOSINGS,
    CONDITIONS,
    FAMILY,
    GREETINGS,
    MORE,
    PADDING,
    TAILS,
    TOPICS,
    Topic,
)
from cascade.environments.synthetic.rows import NanoTask
from cascade.environments.synthetic.story_world import ANIMALS, CITIES, DAYS, FOODS, PEOPLE, THINGS, a, rows

COURTESY = "Of course!"
QUALITIES = ("good", "good", "good", "good", "curt", "padded", "offtopic")


@dataclass(frozen=True)
class Exchange:
    """What was asked, and the sentences of a good reply."""

    messages: list[Message]
    topic: Topic
    other: Topic
    """One that was not asked about."""
    slots: dict[str, str]
    good: list[str]

    @property
    def is_follow_up(self) -> bool:
        return len(self.messages) > 1

    @property
    def adequate(self) -> str:
        """A reply that helps, no more: one idea, friendly only where it opens the conversation."""
        return self.good[1] if self.is_follow_up else " ".join(self.good[:2])


def make_task(rng: Random, level: int) -> NanoTask:
    """A request with a good reply, and an adequate one (`reference`) for it to beat."""
    exchange = make_exchange(rng, level)
    return NanoTask(
        prompt=exchange.messages,
        reasoning=_good_reasoning(exchange),
        content=" ".join(exchange.good),
        fields={"reference": exchange.adequate, "judge": "nano"},
    )


def mixed_quality(count: int, seed: int, level: int) -> Iterator[Row]:
    """What a base model reads: rows with `quality` (good, curt, padded or offtopic) and a reply of that quality as
    `demonstration`. RLHF has something to remove.

    Raises CascadeError for a level outside 1 to 5.
    """
    return rows("human_preference", _mixed_row, count, seed, level)


def make_exchange(rng: Random, level: int) -> Exchange:
    """Level 1: one turn. 2: with a condition. 3: a follow-up. 4: as 2, with up to three ideas. 5: as 3 with a
    condition."""
    topic, other = rng.sample(TOPICS, 2)
    slots = _slots(rng)
    condition = rng.choice(CONDITIONS) if level in (2, 4, 5) else None
    ask = rng.choice(topic.asks).format(**slots)
    if rng.random() < 0.5:
        ask = f"{rng.choice(GREETINGS).format(**slots)} {ask}"
    if condition:
        ask += f" {condition[0]}"
    if rng.random() < 0.4:
        ask += f" {rng.choice(TAILS)}"
    count = rng.choice((2, 3)) if level > 2 else 2
    # In their own order: a message begins with `Dear …`.
    ideas = [topic.ideas[i].format(**slots) for i in sorted(rng.sample(range(len(topic.ideas)), 3))]
    good = [rng.choice(topic.openings).format(**slots), *ideas[:count]]
    if condition:
        good.append(condition[1])
    if rng.random() < 0.7:
        good.append(rng.choice(CLOSINGS))
    messages: list[Message] = [{"role": "user", "content": ask}]
    if level in (3, 5):
        # The follow-up asks for one more idea; what was said must not come again.
        said, fresh = ideas[:2], ideas[2]
        messages += [
            {"role": "assistant", "content": " ".join([good[0], *said])},
            {"role": "user", "content": rng.choice(MORE)},
        ]
        good = [COURTESY, fresh, *([condition[1]] if condition else []), rng.choice(CLOSINGS)]
    return Exchange(messages, topic, other, slots, good)


def _good_reasoning(exchange: Exchange) -> str:
    return f"The user wants {exchange.topic.goal.format(**exchange.slots)}. I give real ideas and stay kind."


def _mixed_row(rng: Random, level: int) -> Row:
    exchange = make_exchange(rng, level)
    topic, other, slots, good = exchange.topic, exchange.other, exchange.slots, exchange.good
    quality = rng.choice(QUALITIES)
    goal = topic.goal.format(**slots)
    content, reasoning = " ".join(good), _good_reasoning(exchange)
    if quality == "curt":
        content, reasoning = topic.short.format(**slots), f"The user wants {goal}. A few words will do."
    elif quality == "padded":
        filler = rng.sample(PADDING, 3)
        content = " ".join([filler[0], *good[:2], filler[1], good[1], filler[2]])
        reasoning = f"The user wants {goal}. I write as much as I can."
    elif quality == "offtopic":
        away = [rng.choice(other.openings), *rng.sample(other.ideas, 2)]
        content = " ".join(away).format(**slots)
        reasoning = f"I would rather talk about {other.goal.format(**slots).removeprefix('to ')}."
    return {
        "responses_create_params": {"input": exchange.messages},
        "quality": quality,
        "demonstration": {"reasoning": reasoning, "content": content, "tool_calls": []},
    }


def _slots(rng: Random) -> dict[str, str]:
    name, other = rng.sample(PEOPLE, 2)
    thing, animal, food = rng.choice(THINGS), rng.choice(ANIMALS), rng.choice(FOODS)
    return {
        "family": rng.choice(FAMILY),
        "day": rng.choice(DAYS),
        "name": name,
        "name2": other,
        "city": rng.choice(CITIES),
        "thing": thing,
        "thing_a": a(thing),
        "animal": animal,
        "animal_a": a(animal),
        "Animal_a": a(animal).capitalize(),
        "food": food,
        "Food": food.capitalize(),
    }
