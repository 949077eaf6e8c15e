"""JSON Schemas that came with a row, compiled once and applied to what a model wrote."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012


@lru_cache(maxsize=4096)
def compile_schema(text: str, *, strict: bool = False) -> Draft202012Validator:
    """`strict`: every object's properties are all required and no others allowed.

    Branches of anyOf, oneOf and allOf stay as they are written, as in NeMo Gym. Raises ValueError, in words, for
    anything but a JSON Schema whose references stay inside it: nothing is ever fetched.
    """
    try:
        schema = json.loads(text)
        if not isinstance(schema, dict):
            raise ValueError("not an object")
        if strict:
            _make_strict(schema)
        Draft202012Validator.check_schema(schema)
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
        for reference in _references(schema):
            resolver.lookup(reference)
    except SchemaError as error:
        raise ValueError(error.message) from None
    except Unresolvable as error:
        raise ValueError(f"the reference {error.ref!r} leads nowhere") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    return Draft202012Validator(schema, registry=Registry())


def misfit(validator: Draft202012Validator, value: Any) -> str | None:
    """What is wrong with the value, in words; None where it fits. Never raises."""
    try:
        problem = best_match(validator.iter_errors(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # YAML and CSV have values that JSON Schema does not foresee: keys that are no strings, infinite numbers.
        return f"cannot be checked: {error}"
    if problem is None:
        return None
    where = ".".join(str(part) for part in problem.absolute_path)
    return f"{where}: {problem.message[:200]}" if where else problem.message[:200]


def _make_strict(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        schema["required"] = list(schema["properties"])
        schema["additionalProperties"] = False
        for child in schema["properties"].values():
            _make_strict(child)
    for key, child in schema.items():
        if key != "properties":
            _make_strict(child)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for child in schema.values():
            yield from _references(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _references(child)
