"""Nano tasks: a request about an everyday topic with 1 to 3 constraints, and an answer that keeps them.

The reasoning notes the constraints in a short regular form and then plans the answer sentence by sentence; with
a word limit it keeps the running count.
"""

import json
import re
from collections.abc import Iterator
from random import Random

from cascade.chat import Row
from cascade.environments.instruction_following.constraints.registry import bind
from cascade.environments.instruction_following.constraints.text import count_words
from cascade.environments.instruction_following.grammar import (
    BLANKS,
    KINDS,
    REQUESTS,
    Sentence,
    class_of,
    lower_first,
    patterns,
    realise,
)
from cascade.environments.instruction_following.requests import Ask, Plan, draw_asks
from cascade.environments.registry import check_level
from cascade.utils.seeds import derive_seed

_SLOTS = ("adj", "adj", "place", "thing", "verb")  # of sentences with nothing to hold
MAX_WORDS = 35  # of an answer, and of its reasoning


def generate_rows(count: int, seed: int, level: int) -> Iterator[Row]:
    """`count` rows with `level` constraints each. Raises CascadeError for a level other than 1, 2, 3."""
    check_level("instruction_following", level)
    return (_row(Random(derive_seed("instruction_following", seed, level, index)), level) for index in range(count))


def _row(rng: Random, level: int) -> Row:
    row = None
    while row is None:
        row = _draw_row(rng, level)
    return row


def _draw_row(rng: Random, level: int) -> Row | None:
    """One row, or None where the constraints drawn leave no room for a short answer."""
    kind = rng.choice(tuple(KINDS))
    noun = rng.choice(KINDS[kind].nouns)
    plan = Plan(noun)
    asks = [draw(rng, plan) for draw in draw_asks(rng, level)]
    checks = [bind(ask.id, ask.kwargs) for ask in asks]
    prompt = _prompt(rng, kind, noun, asks)
    for _ in range(4):
        written = _write(rng, kind, noun, plan)
        if written is None:
            continue
        content, said = written
        reasoning = _reasoning(rng, asks, plan, said)
        if (
            len(content.split()) <= MAX_WORDS
            and len(reasoning.split()) <= MAX_WORDS
            and all(check(content) for check in checks)
        ):
            break
    else:
        return None
    row: Row = {
        "environment": "instruction_following",
        "domain": "instruction_following",
        "level": level,
        "prompt": prompt,
        "instruction_id_list": [ask.id for ask in asks],
        "kwargs": [ask.kwargs for ask in asks],
        "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
        "demonstration": {"reasoning": reasoning, "content": content},
    }
    return {"id": derive_seed(json.dumps(row, sort_keys=True)) >> 16, **row}


def _write(rng: Random, kind: str, noun: str, plan: Plan) -> tuple[str, list[Sentence]] | None:
    """An answer by the plan and its sentences, or None where this attempt did not fit it."""
    body = _body(rng, kind, noun, plan)
    if body is None:
        return None
    if plan.first:
        body[0] = Sentence(f"{plan.first} {lower_first(body[0].text, noun)}", body[0].keys)
    sentences = list(body)
    texts = [f"{sentence.text}." for sentence in body]
    if plan.ending:
        texts.append(plan.ending)
    if plan.bullets:
        lines = [f"* {text}" for text in texts[: plan.bullets]]
        content = "\n".join(lines + texts[plan.bullets :])
    elif plan.paragraphs:
        head = texts[: plan.paragraphs - 1]
        content = "\n***\n".join([*head, " ".join(texts[plan.paragraphs - 1 :])])
    else:
        content = " ".join(texts)
    if plan.postscript:
        extra = _sentence(rng, kind, noun, plan, "It" if noun[0].islower() else "She", None, None)
        if extra is None:
            return None
        sentences.append(extra)
        content += f"\nP.S. {extra.text}."
    if plan.title:
        content = f"<<{_title(rng, noun, sentences[0])}>>\n{content}"
    if plan.quotes:
        content = f'"{content}"'
    if plan.case:
        content = plan.case(content)
    return content, sentences


def _body(rng: Random, kind: str, noun: str, plan: Plan) -> list[Sentence] | None:
    """The sentences that carry what is required, in random order, filled up to the number and length asked for."""
    low, high = plan.sentences
    required: list[str | None] = [*plan.required, *["[blank]"] * plan.blanks]
    number = max(rng.randint(low, high), len(required) + bool(plan.last))
    slots = required + [None] * (number - len(required) - bool(plan.last))
    rng.shuffle(slots)
    body: list[Sentence] = []
    total = 0
    for index in range(number + 3):
        if index >= number and (total >= plan.words[0] or plan.last):
            break
        subject = KINDS[kind].subjects[0] if not body else rng.choice(KINDS[kind].subjects)
        word = slots[index] if index < len(slots) else None
        last = plan.last if index == number - 1 else None
        sentence = _sentence(rng, kind, noun, plan, subject.replace("{n}", noun), word, last)
        if sentence is None:
            return None
        words = count_words(sentence.text)
        if total + words > plan.words[1]:
            return body or None
        body.append(sentence)
        total += words
    return body


def _sentence(
    rng: Random, kind: str, noun: str, plan: Plan, subject: str, word: str | None, last: str | None
) -> Sentence | None:
    """A sentence with the required word in it or at its end, clear of what is to be avoided."""
    avoid = frozenset({*plan.avoid, *plan.required, plan.last or ""})
    for _ in range(6):
        if word == "[blank]":
            text = rng.choice(BLANKS)
            sentence = Sentence(text, (text[text.index("[") : text.index("]") + 1],))
        else:
            target = last or word
            slot = class_of(target) if target else None
            pattern = rng.choice(patterns(kind, slot or rng.choice(_SLOTS), last is not None))
            sentence = realise(pattern, subject, noun, rng, {slot: target} if slot and target else {}, avoid)
        if not plan.commas and "," in sentence.text:
            sentence = Sentence(sentence.text.replace(",", ""), sentence.keys)
        if plan.avoid.isdisjoint(sentence.text.lower().split()):
            return sentence
        subject = rng.choice(KINDS[kind].subjects).replace("{n}", noun)
    return None


def _title(rng: Random, noun: str, first: Sentence) -> str:
    key = first.keys[0].strip("[]")
    return rng.choice((f"The {noun}", f"About {noun}", f"{noun} and {key}", f"A note on {noun}", f"{key}"))


def _reasoning(rng: Random, asks: list[Ask], plan: Plan, said: list[Sentence]) -> str:
    notes = [ask.note for ask in asks]
    keys = [" ".join(sentence.keys[:1]) for sentence in said]
    if plan.words != (0, 99):
        totals = [sum(count_words(s.text) for s in said[: i + 1]) for i in range(len(said))]
        keys = [f"{key} ({total})" for key, total in zip(keys, totals, strict=True)]
    points = ", ".join(f"{i} {key}" for i, key in enumerate(keys, 1))
    style = rng.randrange(3)
    if style == 0:
        return f"Checks: {'; '.join(notes)}. Plan: {points}."
    if style == 1:
        return f"I need: {'; '.join(notes)}. I say: {points}."
    return f"Keep {' and '.join(notes)}. So: {points}."


def _prompt(rng: Random, kind: str, noun: str, asks: list[Ask]) -> str:
    if rng.random() < 0.8:
        request = rng.choice(REQUESTS).replace("{t}", rng.choice(KINDS[kind].named).replace("{n}", noun))
    else:
        request = rng.choice(KINDS[kind].requests).replace("{n}", noun)
    request = re.sub(r"\ba (?=[aeiou])", "an ", request)
    wordings = [ask.wording for ask in asks]
    full = [_as_sentence(wording) for wording in wordings]
    style = rng.randrange(6)
    if style == 0:
        return " ".join([*full, request])
    if style == 1:
        return " ".join([full[0], request, *full[1:]])
    if style == 2:
        lead = rng.choice(("Rules:", "Please follow these rules:", "Keep to this:", "Note:"))
        return "\n".join([request, lead, *(f"- {wording}" for wording in wordings)])
    if style == 3 and len(asks) > 1:
        return "\n".join([request, *(f"{i}. {sentence}" for i, sentence in enumerate(full, 1))])
    if style == 4:
        joined = ", ".join(wordings[:-1]) + " and " + wordings[-1] if len(wordings) > 1 else wordings[0]
        return f"{request} {rng.choice(('Please', 'Also', 'But', 'And'))} {_as_sentence(joined, capital=False)}"
    return " ".join([request, *full])


def _as_sentence(wording: str, capital: bool = True) -> str:
    wording = wording[0].upper() + wording[1:] if capital else wording
    return wording if wording.endswith(('."', '?"', "P.S.")) else f"{wording}."
