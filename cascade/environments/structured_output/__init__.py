"""Structured output against a JSON Schema (NeMo Gym's `structured_outputs`), and against values where the row has them.

A row holds `schema_str` (JSON Schema as text), `schema_type` (the format of the answer: json, yaml, xml, toml, csv)
and `response_mode`:

- `text`: the whole answer is the document; prose or a Markdown fence around it is wrong.
- `tool_call`: exactly one call, of `tool_name` where given; its arguments, or their part `tool_payload_key`, count.

As in NeMo Gym the schema is made strict first: every object's properties are all required and no others allowed.
(Branches of anyOf, oneOf and allOf stay as they are written.) XML and CSV, which know only text, take the schema's
types. Our own rows carry `expected` as well: the values must equal it, so the reward is not for form alone.
"""

from collections.abc import Iterator
from typing import Any

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.shared.json_schema import compile_schema, misfit
from cascade.environments.structured_output import parsing
from cascade.environments.structured_output.tasks import make_task
from cascade.environments.synthetic.rows import nano_rows
from cascade.environments.tool_calling.calls import with_schema_types
from cascade.errors import RowError

MODES = ("text", "tool_call")


class StructuredOutput(Environment):
    name = "structured_output"
    gym_names = ("structured_output",)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `bad_schema`, `bad_format`, `bad_response_mode`, `bad_expected`."""
        text = row.get("schema_str")
        if not isinstance(text, str):
            raise RowError("bad_schema", "structured_output: the row has no `schema_str`")
        try:
            validator = compile_schema(text, strict=True)
        except ValueError as error:
            raise RowError("bad_schema", f"structured_output: schema_str is no JSON Schema: {error}") from None
        if _format(row) not in parsing.PARSERS:
            raise RowError(
                "bad_format",
                f"structured_output: unknown schema_type {_format(row)!r}; have {', '.join(parsing.PARSERS)}",
            )
        if _mode(row) not in MODES:
            raise RowError("bad_response_mode", f"structured_output: unknown response_mode {_mode(row)!r}")
        if "expected" in row and misfit(validator, row["expected"]):
            raise RowError("bad_expected", "structured_output: `expected` does not fit the row's own schema")

    def verify(self, row: Row, response: Response) -> Verdict:
        validator = compile_schema(row["schema_str"], strict=True)
        try:
            value = (_payload if _mode(row) == "tool_call" else _document)(row, response, validator.schema)
        except ValueError as error:
            return Verdict(0.0, reason=str(error))
        problem = misfit(validator, value)
        if problem is not None:
            return Verdict(0.0, extracted=value, reason=f"does not fit the schema: {problem}")
        if "expected" in row and not _equal(value, row["expected"]):
            return Verdict(0.0, extracted=value, reason=f"fits the schema, but the values are not {row['expected']}")
        return Verdict(1.0, extracted=value, reason="fits the schema")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Level 1: JSON, two fields. 2: JSON, three or four. 3: YAML or CSV. 4: nested or computed JSON and YAML."""
        return nano_rows(self.name, self.name, count, seed, level, make_task)


def _format(row: Row) -> Any:
    return row.get("schema_type") or "json"


def _mode(row: Row) -> Any:
    return row.get("response_mode") or "text"


def _document(row: Row, response: Response, schema: Any) -> Any:
    if not response.content.strip():
        raise ValueError("the response has no answer")
    value = parsing.parse(_format(row), response.content)
    return parsing.with_types(_format(row), value, schema)


def _payload(row: Row, response: Response, schema: Any) -> Any:
    if response.malformed:
        raise ValueError(response.malformed)
    if len(response.tool_calls) != 1:
        raise ValueError(f"{len(response.tool_calls)} calls, where exactly one is asked for")
    call = response.tool_calls[0]
    name, key = row.get("tool_name"), row.get("tool_payload_key")
    if name and call.name != name:
        raise ValueError(f"called {call.name}, expected {name}")
    parsing.check_size(call.arguments)
    if not key:
        # Written in the chat template's format a call has no types of its own.
        return with_schema_types(call, {call.name: schema}).arguments
    if key not in call.arguments:
        raise ValueError(f"the call has no argument {key!r}")
    return call.arguments[key]


def _equal(one: Any, other: Any) -> bool:
    """Like ==, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


ENVIRONMENT = StructuredOutput()
