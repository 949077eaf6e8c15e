"""Nano extraction tasks: a few sentences about a person, a product, a trip or an order, to be written as data."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import yaml

from cascade.environments.synthetic import vocabulary as words
from cascade.environments.synthetic.arithmetic import steps, sum_steps
from cascade.environments.synthetic.rows import NanoTask


@dataclass(frozen=True)
class Field:
    """One fact: its JSON type, how it is drawn, and sentences that state it ({0} the subject, {1} the value)."""

    kind: str
    draw: Callable[[Random], Any]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What a text is about. `key` is the field that names it, `total` the two fields whose product can be asked for."""

    key: str
    draw: Callable[[Random], str]
    fields: dict[str, Field]
    total: tuple[str, str] | None = None


def _text(*pool: str) -> Callable[[Random], str]:
    return lambda rng: rng.choice(pool)


def _number(low: int, high: int) -> Callable[[Random], int]:
    return lambda rng: rng.randint(low, high)


SUBJECTS: tuple[Subject, ...] = (
    Subject("name", _text(*words.NAMES), {
        "age": Field("integer", _number(18, 80), (
            "{0} is {1} years old.", "The age of {0} is {1}.", "{0} turned {1} this year.",
        )),
        "city": Field("string", _text(*words.CITIES), (
            "{0} lives in {1}.", "The home of {0} is {1}.", "You can meet {0} in {1}.",
        )),
        "job": Field("string", _text(*words.JOBS), (
            "{0} works as a {1}.", "The job of {0} is {1}.", "{0} is a {1}.",
        )),
        "pet": Field("string", _text(*words.ANIMALS), (
            "{0} has a {1} as a pet.", "The pet of {0} is a {1}.", "At home {0} keeps a {1}.",
        )),
        "color": Field("string", _text(*words.COLORS), (
            "{0} likes {1} best.", "The favorite color of {0} is {1}.", "{0} always wears {1}.",
        )),
    }),
    Subject("item", _text(*words.FURNITURE, *words.TOOLS), {
        "price": Field("integer", _number(5, 99), (
            "The {0} costs {1} coins.", "The price of the {0} is {1}.", "You pay {1} coins for a {0}.",
        )),
        "count": Field("integer", _number(2, 9), (
            "There are {1} of the {0} in the shop.", "The shop has {1} of the {0}.", "Of the {0} there are {1} left.",
        )),
        "color": Field("string", _text(*words.COLORS), (
            "The {0} is {1}.", "The color of the {0} is {1}.", "Its maker paints the {0} {1}.",
        )),
        "city": Field("string", _text(*words.CITIES), (
            "The {0} is made in {1}.", "The {0} comes from {1}.", "A shop in {1} sells the {0}.",
        )),
    }, total=("price", "count")),
    Subject("origin", _text(*words.CITIES[:10]), {
        "destination": Field("string", _text(*words.CITIES[10:]), (
            "The trip from {0} goes to {1}.", "From {0} we travel to {1}.", "We leave {0} and go to {1}.",
        )),
        "day": Field("string", _text(*words.DAYS), (
            "The day of leaving {0} is {1}.", "We start in {0} on {1}.", "On {1} we set off from {0}.",
        )),
        "seats": Field("integer", _number(2, 9), (
            "We need {1} seats.", "There are {1} seats booked.", "The group takes {1} seats.",
        )),
        "price": Field("integer", _number(10, 99), (
            "A seat costs {1} coins.", "The price of a seat is {1}.", "We pay {1} coins a seat.",
        )),
    }, total=("price", "seats")),
    Subject("customer", _text(*words.NAMES), {
        "item": Field("string", _text(*words.FRUITS, *words.VEGETABLES), (
            "{0} orders the item {1}.", "The order of {0} is for {1}.", "What {0} wants is {1}.",
        )),
        "count": Field("integer", _number(2, 9), (
            "{0} takes {1} pieces.", "The order of {0} has {1} pieces.", "{0} asks for {1} pieces.",
        )),
        "price": Field("integer", _number(2, 30), (
            "One piece costs {1} coins.", "The price for one is {1}.", "{0} pays {1} coins for each.",
        )),
        "day": Field("string", _text(*words.DAYS), (
            "Bring it to {0} on {1}.", "{0} gets it on {1}.", "The day of delivery to {0} is {1}.",
        )),
    }, total=("price", "count")),
)  # fmt: skip

ASKS = (
    "Write the facts as {0} that fits this schema: {1}",
    "Answer with {0} only, by this schema: {1}",
    "Give {0} for the schema {1}",
    "Put the data into {0}. Schema: {1}",
    "Extract the fields as {0}. The schema is {1}",
    "Turn the text into {0} of this form: {1}",
    "Fill this schema and answer in {0}: {1}",
    "Schema: {1}\nReply with {0} and nothing else.",
    "Return only {0}. It must match {1}",
    "Your answer must be {0} with the schema {1}",
)

Schema = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A subject's facts in the order of the schema, how the text states them, and what to think about them."""

    values: dict[str, Any]
    properties: dict[str, Schema]
    sentences: list[str]
    notes: list[str]


def make_task(rng: Random, level: int) -> NanoTask:
    if level == 4:
        return rng.choice((_computed, _nested, _listed))(rng)
    subject = rng.choice(SUBJECTS)
    if level == 3 and rng.random() < 0.5:
        return _table(rng, subject)
    asked = {1: 1, 2: rng.randint(2, 3), 3: rng.randint(1, 2)}[level]
    record = _record(rng, subject, asked, told=asked + (level == 2))
    form = "yaml" if level == 3 else "json"
    return _task(rng, record.sentences, _object(record.properties), record.values, record.notes, form)


def _record(rng: Random, subject: Subject, asked: int, told: int, name: str | None = None) -> Record:
    """`asked` fields beside the key, out of `told` that the text states."""
    name = name or subject.draw(rng)
    chosen = rng.sample(list(subject.fields), min(told, len(subject.fields)))
    facts = {key: subject.fields[key].draw(rng) for key in chosen}
    sentences = [rng.choice(subject.fields[key].sentences).format(name, value) for key, value in facts.items()]
    if not any(name in sentence for sentence in sentences):
        sentences.insert(0, f"This is about {name}.")
    wanted = rng.sample(chosen, min(asked, len(chosen)))
    values = {subject.key: name, **{key: facts[key] for key in wanted}}
    properties = {subject.key: {"type": "string"}, **{key: {"type": subject.fields[key].kind} for key in wanted}}
    return Record(values, properties, sentences, [f"{key} is {value}" for key, value in values.items()])


def _table(rng: Random, subject: Subject) -> NanoTask:
    """Two subjects, the same columns: CSV."""
    names: list[str] = []
    while len(names) < 2:
        name = subject.draw(rng)
        if name not in names:
            names.append(name)
    key, field = rng.choice([(k, f) for k, f in subject.fields.items() if all("{0}" in s for s in f.sentences)])
    rows = [{subject.key: name, key: field.draw(rng)} for name in names]
    sentences = [rng.choice(field.sentences).format(row[subject.key], row[key]) for row in rows]
    notes = [f"{row[subject.key]} has {key} {row[key]}" for row in rows]
    schema = {"type": "array", "items": _object({subject.key: {"type": "string"}, key: {"type": field.kind}})}
    return _task(rng, sentences, schema, rows, notes, "csv")


def _computed(rng: Random) -> NanoTask:
    """A total that the text does not state."""
    subject = rng.choice([s for s in SUBJECTS if s.total])
    assert subject.total is not None
    name = subject.draw(rng)
    facts = {key: subject.fields[key].draw(rng) for key in subject.total}
    total = facts[subject.total[0]] * facts[subject.total[1]]
    sentences = [rng.choice(subject.fields[key].sentences).format(name, value) for key, value in facts.items()]
    if not any(name in sentence for sentence in sentences):
        sentences.insert(0, f"This is about {name}.")
    kept = rng.choice(subject.total)
    values = {subject.key: name, kept: facts[kept], "total": total}
    sentences.append(f"The total is {subject.total[0]} times {subject.total[1]}.")
    work = ", ".join(steps(facts[subject.total[0]], "*", facts[subject.total[1]]))
    notes = [f"{subject.key} is {name}", f"{kept} is {facts[kept]}", f"total: {work}"]
    properties = {subject.key: {"type": "string"}, kept: {"type": "integer"}, "total": {"type": "integer"}}
    return _task(rng, sentences, _object(properties), values, notes, rng.choice(("json", "yaml")))


def _nested(rng: Random) -> NanoTask:
    """An object within an object."""
    subject = rng.choice(SUBJECTS)
    record = _record(rng, subject, asked=2, told=3)
    outer = rng.choice(("data", "entry", "record", "info"))
    schema = _object({outer: _object(record.properties)})
    return _task(rng, record.sentences, schema, {outer: record.values}, record.notes, rng.choice(("json", "yaml")))


def _listed(rng: Random) -> NanoTask:
    """A list of words or of numbers, with their sum."""
    name = rng.choice(words.NAMES)
    if rng.random() < 0.5:
        things = rng.sample(words.FRUITS + words.VEGETABLES, rng.randint(2, 4))
        shown = ", ".join(things[:-1]) + f" and {things[-1]}"
        sentence = rng.choice(("{0} buys {1}.", "On the list of {0} are {1}.", "{0} eats {1}.", "{0} likes {1}."))
        values: dict[str, Any] = {"name": name, "items": things}
        properties: dict[str, Schema] = {"items": {"type": "array", "items": {"type": "string"}}}
        notes = [f"name is {name}", f"items are {', '.join(things)}"]
    else:
        numbers = [rng.randint(1, 50) for _ in range(rng.randint(2, 3))]
        shown = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        sentence = rng.choice(("{0} scores {1} points.", "The points of {0} are {1}.", "{0} gets {1} points."))
        values = {"name": name, "points": numbers, "sum": sum(numbers)}
        properties = {"points": {"type": "array", "items": {"type": "integer"}}, "sum": {"type": "integer"}}
        notes = [
            f"name is {name}",
            f"points are {', '.join(map(str, numbers))}",
            f"sum: {', '.join(sum_steps(numbers))}",
        ]
    schema = _object({"name": {"type": "string"}, **properties})
    return _task(rng, [sentence.format(name, shown)], schema, values, notes, rng.choice(("json", "yaml")))


def _task(rng: Random, sentences: list[str], schema: Schema, expected: Any, notes: list[str], form: str) -> NanoTask:
    schema_text = json.dumps(schema)
    ask = rng.choice(ASKS).format(form.upper(), schema_text)
    text = " ".join(sentences)
    end = rng.choice(("", f" Now the {form.upper()}.", f" In {form.upper()}.", f" Write {form.upper()}."))
    return NanoTask(
        prompt=f"{text}\n{ask}" if rng.random() < 0.6 else f"{ask}\nText: {text}",
        reasoning=", ".join(notes) + "." + end,
        content=_write(form, expected),
        fields={
            "schema_str": schema_text,
            "schema_type": form,
            "response_mode": "text",
            "problem_type": "direct",
            "expected": expected,
        },
    )


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties}


def _write(form: str, value: Any) -> str:
    if form == "json":
        return json.dumps(value)
    if form == "yaml":
        return yaml.safe_dump(value, sort_keys=False).strip()
    return "\n".join([",".join(value[0]), *(",".join(str(cell) for cell in row.values()) for row in value)])
