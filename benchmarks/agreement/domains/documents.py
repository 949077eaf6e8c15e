"""Structured output: documents made for a schema in each format, and documents broken in one place."""

import copy
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import escape

import yaml

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, ToolCall, response_from_openai
from cascade.utils.seeds import derive_seed

SCHEMAS: list[tuple[str, dict[str, Any], Any]] = [
    # (name, schema, a document that fits)
    ("flat", {"name": "string", "age": "integer", "height": "number", "member": "boolean"},
     {"name": "Ada", "age": 36, "height": 1.7, "member": True}),
    ("list of texts", {"tags": ["string"]}, {"tags": ["a", "b"]}),
    ("list of one", {"tags": ["string"]}, {"tags": ["a"]}),
    ("empty list", {"tags": ["string"]}, {"tags": []}),
    ("nested", {"who": {"name": "string", "born": "integer"}}, {"who": {"name": "Ada", "born": 1815}}),
    ("list of objects", {"who": [{"name": "string"}]}, {"who": [{"name": "Ada"}, {"name": "Bo"}]}),
    ("text that reads as a number", {"zip": "string"}, {"zip": "01234"}),
    ("text that reads as a truth", {"country": "string"}, {"country": "no"}),
    ("text that reads as a date", {"day": "string"}, {"day": "2024-01-02"}),
    ("empty text", {"note": "string"}, {"note": ""}),
    ("whole number as a number", {"price": "number"}, {"price": 3}),
    ("letters of all kinds", {"name": "string"}, {"name": "Zoë & <b> \"q\" 中"}),
]  # fmt: skip


def cases(count: int, seed: int, gym_packages: Path) -> Iterator[Case]:
    for name, fields, document in SCHEMAS:
        schema = _schema(fields)
        for kind, write in {**WRITERS, "xml": _rooted}.items():
            text = write(document)
            if text is None:
                continue
            row = _row(schema, kind)
            # Of a format without types, what is written there is the document that the schema makes of it.
            yield _case(row, Response(text), f"{name}, {kind}", True)
            yield from _broken(row, document, write, f"{kind}")
            yield _case(row, Response(f"```{kind}\n{text}\n```"), "in a fence", None)
            yield _case(row, Response(f"Here it is:\n{text}"), "prose before", None if kind == "yaml" else False)
    for row in rows("structured_output", count, seed, range(1, 5)):
        # NeMo Gym's server does not compare values; the rows' own are left out here.
        bare = {key: value for key, value in row.items() if key != "expected"}
        yield _case(bare, demonstrated(row), "demonstration", True)
        kind = row["schema_type"]
        yield from _broken(bare, row["expected"], WRITERS[kind], kind)
    for text in (
        '{"price": NaN}',
        '{"price": Infinity}',
        '{"price": 1e999}',
        '{"price": 1, "price": 2}',
        '{"price": 01}',
    ):
        yield _case(_row(_schema({"price": "number"}), "json"), Response(text), f"json {text}", None)
    for value in (
        "yes",
        "on",
        "1_000",
        "0o17",
        "017",
        "1:30",
        "~",
        "null",
        "1e3",
        ".5",
        "0x1F",
        "12:30:45",
        "2024-01-02",
    ):
        for wanted in ("string", "integer", "number", "boolean"):
            row = _row(_schema({"a": wanted}), "yaml")
            yield _case(row, Response(f"a: {value}"), f"yaml {value} as {wanted}", None)
    for row in gym_rows(gym_packages, "structured_outputs"):
        yield from _of_gym({key: value for key, value in row.items() if key != "response"}, seed)
        if "response" in row:
            yield _case(row, response_from_openai(row["response"]), "rollout", None)


def _of_gym(row: Row, seed: int) -> Iterator[Case]:
    schema = json.loads(row["schema_str"])
    for draw in range(4):
        document = instance(schema, Random(derive_seed(seed, row["schema_str"], draw)))
        if row.get("response_mode") == "tool_call":
            key = row.get("tool_payload_key")
            arguments = {key: document} if key else document
            if isinstance(arguments, dict):
                call = ToolCall(row.get("tool_name") or "respond", arguments)
                yield _case(row, Response("", tool_calls=(call,)), "made for the schema, call", None)
                yield _case(row, Response("", tool_calls=(call, call)), "called twice", False)
                other = ToolCall("another_tool", arguments)
                yield _case(
                    row, Response("", tool_calls=(other,)), "another tool", False if row.get("tool_name") else None
                )
            continue
        write = WRITERS[row.get("schema_type") or "json"]
        if (text := write(document)) is not None:
            yield _case(row, Response(text), "made for the schema", None)
            yield from _broken(row, document, write, row.get("schema_type") or "json", known=False)


def _broken(
    row: Row, document: Any, write: Callable[[Any], str | None], kind: str, known: bool = True
) -> Iterator[Case]:
    """The document without a field, with one more, with a value of another type, cut off."""
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, dict) or not first:
        return
    name = next(iter(first))

    def changed(change: Callable[[dict], None]) -> str | None:
        made = copy.deepcopy(document)
        change(made[0] if isinstance(made, list) else made)
        return write(made)

    false = False if known else None
    variants = {
        "a field less": (changed(lambda made: made.pop(name)), None if kind == "csv" and len(first) == 1 else false),
        "a field more": (changed(lambda made: made.update(extra="x")), false),
        "an object for a value": (changed(lambda made: made.update({name: {"deep": 1}})), None),
        "null for a value": (changed(lambda made: made.update({name: None})), None),
        "a number for a value": (changed(lambda made: made.update({name: 4.5})), None),
        "a list for a value": (changed(lambda made: made.update({name: ["x", "y"]})), None),
    }
    for origin, (text, right) in variants.items():
        if text is not None:
            yield _case(row, Response(text), origin, right)
    whole = write(document)
    if whole and kind in ("json", "xml"):
        yield _case(row, Response(whole[:-2]), "cut off", false)


def instance(schema: Any, rng: Random, depth: int = 0) -> Any:
    """A document for the keywords that say what kind of value is wanted; it may break bounds and patterns."""
    if not isinstance(schema, dict):
        return "x"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return instance(rng.choice(schema[key]), rng, depth)
    kind = schema.get("type")
    kind = rng.choice(kind) if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: instance(part, rng, depth + 1) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        least = schema.get("minItems", 0 if depth > 3 else 1)
        return [instance(schema.get("items", {}), rng, depth + 1) for _ in range(max(least, rng.randint(0, 2)))]
    if kind == "integer":
        return rng.randint(schema.get("minimum", 0) or 0, (schema.get("minimum", 0) or 0) + 9)
    if kind == "number":
        return (schema.get("minimum", 0) or 0) + rng.choice([0, 0.5, 2])
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else rng.choice(["x", "two words", "7", "true"])


def _schema(fields: Any) -> dict[str, Any]:
    if isinstance(fields, str):
        return {"type": fields}
    if isinstance(fields, list):
        return {"type": "array", "items": _schema(fields[0])}
    return {"type": "object", "properties": {name: _schema(part) for name, part in fields.items()}}


def _row(schema: dict[str, Any], kind: str) -> Row:
    if kind == "csv":
        schema = {"type": "array", "items": schema}
    if kind == "xml":
        schema = {"type": "object", "properties": {"root": schema}}
    asked = {"input": [{"role": "user", "content": "Fill it in."}]}
    return {
        "responses_create_params": asked,
        "schema_str": json.dumps(schema),
        "schema_type": kind,
        "response_mode": "text",
    }


def _xml(document: Any) -> str | None:
    if isinstance(document, dict) and len(document) == 1 and isinstance(next(iter(document.values())), dict):
        name, inside = next(iter(document.items()))
        return _element(name, inside)
    return _element("root", document)


def _rooted(document: Any) -> str:
    return _element("root", document)


def _element(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"<{name}>{''.join(_element(key, part) for key, part in value.items())}</{name}>"
    if isinstance(value, list):
        return f"<{name}>{''.join(_element('item', part) for part in value)}</{name}>"
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{name}>{text}</{name}>"


def _toml(document: Any) -> str | None:
    if not isinstance(document, dict):
        return None
    simple, tables = [], []
    for name, value in document.items():
        if value is None:
            return None
        if isinstance(value, dict):
            inside = _toml(value)
            if inside is None or any(isinstance(part, dict) for part in value.values()):
                return None
            tables.append(f"[{name}]\n{inside}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            parts = [_toml(part) for part in value]
            if any(part is None for part in parts):
                return None
            tables += [f"[[{name}]]\n{part}" for part in parts]
        else:
            simple.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*simple, *tables])


def _csv(document: Any) -> str | None:
    lines = document if isinstance(document, list) else [document]
    if not all(isinstance(line, dict) for line in lines) or any(
        isinstance(value, dict | list) for line in lines for value in line.values()
    ):
        return None
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        if line.keys() != lines[0].keys():
            return None
        writer.writerow({k: str(v).lower() if isinstance(v, bool) else v for k, v in line.items()})
    return out.getvalue()


WRITERS: dict[str, Callable[[Any], str | None]] = {
    "json": lambda document: json.dumps(document, ensure_ascii=False),
    "yaml": lambda document: yaml.safe_dump(document, allow_unicode=True, sort_keys=False),
    "xml": _xml,
    "toml": _toml,
    "csv": _csv,
}


def _case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    return Case("structured_output", row, response, origin, right, gym("structured_outputs", row, response))


def as_case(row: Row, response: Response) -> Case:
    return _case(row, response, "", None)
