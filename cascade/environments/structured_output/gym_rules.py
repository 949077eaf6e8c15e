"""How NeMo Gym's `structured_outputs` reads documents: YAML 1.1, JSON with NaN, types by a schema's `type` alone.

For rows with `grading: gym`; `parsing` and `typing` say what is read otherwise.
"""

import csv
import io
import json
import tomllib
from collections.abc import Callable
from typing import Any

import xmltodict
import yaml

Schema = dict[str, Any]


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
