"""Text → data in the formats that NeMo Gym's rows ask for, and types back into formats that have none."""

import csv
import io
import json
import tomllib
from collections.abc import Callable
from typing import Any

import xmltodict
import yaml

MAX_CHARACTERS = 200_000
MAX_NODES = 200_000
MAX_DEPTH = 100
MAX_BITS = 10_000
"""Of an integer: YAML's hexadecimal ones escape Python's own limit, and longer ones cannot be written again."""

Schema = dict[str, Any]


def parse(schema_type: str, text: str) -> Any:
    """Raises ValueError, in words, for anything that is not `schema_type` or is too large to look at."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    try:
        value = PARSERS[schema_type](text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except Exception as error:
        # Each format's library has its own errors; all of them are about what the model wrote.
        raise ValueError(f"not {schema_type.upper()}: {' '.join(str(error).split())[:200]}") from None
    check_size(value)
    return value


def check_size(value: Any) -> None:
    """Raises ValueError where walking through the value would take too long: aliases make YAML exponential."""
    stack, seen = [(value, 0)], 0
    while stack:
        item, depth = stack.pop()
        seen += 1
        if seen > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError("too large or nested too deep")
        if isinstance(item, int) and item.bit_length() > MAX_BITS:
            raise ValueError("a number that is too long")
        if isinstance(item, dict):
            if not all(isinstance(key, str | int | float | None) for key in item):
                raise ValueError("a key that JSON cannot write")
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list | tuple | set):
            stack += [(child, depth + 1) for child in item]


def with_types(schema_type: str, value: Any, schema: Schema) -> Any:
    """Values of XML and CSV, which are all text, as the schema's types where they read as such."""
    if schema_type == "xml":
        return _from_xml(value, schema)
    if schema_type == "csv":
        columns = schema.get("items", schema).get("properties", {})
        return [{name: _scalar(cell, columns.get(name, {}).get("type")) for name, cell in row.items()} for row in value]
    return value


def _from_xml(value: Any, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "object" and isinstance(value, dict):
        properties = schema.get("properties", {})
        return {name: _from_xml(child, properties.get(name)) for name, child in value.items()}
    if kind == "array":
        # <tags><item>a</item><item>b</item></tags> reads as {"item": ["a", "b"]}, or {"item": "a"} with one.
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        items = value if isinstance(value, list) else [] if value is None else [value]
        return [_from_xml(item, schema.get("items", {})) for item in items]
    if value is None and kind == "string":
        return ""
    return _scalar(value, kind)


def _scalar(text: Any, kind: Any) -> Any:
    """The text as a value of the JSON Schema type, or unchanged where it is none: validation then says so."""
    if isinstance(kind, list):
        if not text and "null" in kind:
            return None
        for one in kind:
            value = _scalar(text, one)
            if one == "string" or not isinstance(value, str):
                return value
        return text
    if not isinstance(text, str) or not text:
        return text
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
    except ValueError:
        return text
    if kind == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text


PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "yaml": yaml.safe_load,
    "xml": xmltodict.parse,
    "toml": tomllib.loads,
    "csv": lambda text: list(csv.DictReader(io.StringIO(text))),
}
