"""Calls against JSON Schemas and against expected calls."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator

from cascade.chat import Row, ToolCall, json_object, read_json
from cascade.environments.shared.json_schema import compile_schema, misfit
from cascade.errors import RowError

Tools = dict[str, dict[str, Any]]
"""Tool name → JSON Schema of its arguments."""
Score = tuple[float, str]

# Case counts in these workplace fields, where NeMo Gym compares them as they are written.
_CASE_COUNTS = frozenset({"status", "list_name", "board"})
_READS = ("_find_", "_search_", "_get_", "_count")
_NOT_TEXT = ("integer", "number", "boolean", "array", "object", "null")
_REPEATABLE = ("_update_", "_delete_")


def tools_of(row: Row) -> Tools:
    """Raises RowError (`bad_tools`)."""
    found: Tools = {}
    for tool in row.get("responses_create_params", {}).get("tools") or []:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        name, schema = function.get("name"), function.get("parameters") or {"type": "object"}
        if not isinstance(name, str) or not isinstance(schema, dict):
            raise RowError("bad_tools", "tool_calling: a tool has no name or its parameters are no JSON Schema")
        found[name] = schema
        try:
            compile_schema(json.dumps(schema))
        except ValueError as error:
            raise RowError("bad_tools", f"tool_calling: the schema of {name!r} is invalid: {error}") from None
    return found


def ground_truth(row: Row) -> list[ToolCall]:
    """Raises RowError (`no_ground_truth`, `bad_ground_truth`)."""
    entries = row.get("ground_truth")
    if isinstance(entries, str):
        try:
            entries = read_json(entries)
        except ValueError:
            raise RowError("bad_ground_truth", "tool_calling: ground_truth is text, but not JSON") from None
    if not isinstance(entries, list):
        raise RowError("no_ground_truth", "tool_calling: the row has neither `ground_truth` nor `expected_action`")
    return [read_call(entry) for entry in entries]


def read_call(entry: Any) -> ToolCall:
    """{name, arguments (JSON text or object)} as a call. Raises RowError (`bad_ground_truth`)."""
    try:
        return ToolCall(entry["name"], json_object(entry["arguments"]))
    except (TypeError, KeyError, ValueError) as error:
        raise RowError("bad_ground_truth", f"tool_calling: an expected call cannot be read: {error!r}") from None


def problem_with(call: ToolCall, tools: Tools) -> str | None:
    """Why the call is not one of the row's tools with valid arguments, in words."""
    if call.name not in tools:
        return f"no tool is called {call.name!r}"
    problem = misfit(compile_schema(json.dumps(tools[call.name])), call.arguments)
    return f"{call.name}: {problem}" if problem else None


def with_schema_types(call: ToolCall, tools: Tools, expected: Sequence[ToolCall] = ()) -> ToolCall:
    """Arguments that the schema wants as text and that were read as something else, as text again: as it was written,
    where the call was written without types.

    Where the schema allows text and something else, the text means what an expected call has in its place.
    """
    schema = tools.get(call.name, {})
    arguments = {}
    for name, value in call.arguments.items():
        text = call.written.get(name)
        as_read = isinstance(value, str) if text is None else value == text
        if not as_read and _reads_as_text(call, name, schema, expected):
            value = json.dumps(value, ensure_ascii=False) if text is None else text
        arguments[name] = value
    return ToolCall(call.name, arguments)


def _reads_as_text(call: ToolCall, name: str, schema: dict[str, Any], expected: Sequence[ToolCall]) -> bool:
    properties = schema.get("properties")
    part = properties.get(name) if isinstance(properties, dict) else None
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "string" or kind in _NOT_TEXT or name not in call.written:
        return kind == "string"
    text, value = call.written[name], call.arguments[name]
    validator = compile_schema(json.dumps(schema))
    if not _fits(validator, name, text):
        return False
    if not _fits(validator, name, value):
        return True
    wanted = [other.arguments.get(name) for other in expected if other.name == call.name]
    return text in wanted and value not in wanted


def _fits(validator: Draft202012Validator, name: str, value: Any) -> bool:
    """Whether the schema, wherever it speaks of this argument, allows the value."""
    try:
        return all(next(iter(e.absolute_path), None) != name for e in validator.iter_errors({name: value}))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def compare(expected: Sequence[ToolCall], made: Sequence[ToolCall], tools: Tools, *, ordered: bool) -> Score:
    """1 when every call is valid and the calls are the expected ones, else 0."""
    for call in made:
        problem = problem_with(call, tools)
        if problem:
            return 0.0, problem
    if len(made) != len(expected):
        return 0.0, f"{len(made)} calls, expected {len(expected)}"
    wanted, got = [_key(call) for call in expected], [_key(call) for call in made]
    if wanted == got or (not ordered and Counter(wanted) == Counter(got)):
        return 1.0, "the calls are the expected ones"
    if Counter(wanted) == Counter(got):
        return 0.0, "the calls are right, but not in order"
    wrong = next(call for call, key in zip(made, got, strict=True) if got.count(key) > wanted.count(key))
    return 0.0, f"not expected: {wrong.name}({json.dumps(wrong.arguments, ensure_ascii=False)})"


def compare_effects(expected: Sequence[ToolCall], made: Sequence[ToolCall], tools: Tools) -> Score:
    """1 when the calls that change something are the expected ones."""
    wanted, got = _effects(expected), _effects([call for call in made if problem_with(call, tools) is None])
    if wanted == got:
        return 1.0, "the changes are the expected ones"
    return 0.0, f"{(wanted - got).total()} expected changes are missing, {(got - wanted).total()} were not asked for"


def _effects(calls: Sequence[ToolCall]) -> Counter[str]:
    changing = [call for call in calls if not any(part in call.name for part in _READS)]
    counts = Counter(map(_office_key, changing))
    names = {_office_key(call): call.name for call in changing}
    return Counter({key: 1 if any(p in names[key] for p in _REPEATABLE) else n for key, n in counts.items()})


def _office_key(call: ToolCall) -> str:
    """Equal for calls with the same effect: what names an entry or a field counts as it is written, in other text case
    does not."""
    arguments = {
        name: value
        if name in _CASE_COUNTS
        or name == "field"
        or name.endswith("_id")
        or (name == "new_value" and call.arguments.get("field") in _CASE_COUNTS)
        else value.lower()
        if isinstance(value, str)
        else value
        for name, value in call.arguments.items()
    }
    return json.dumps([call.name, arguments], sort_keys=True)


def _key(call: ToolCall) -> str:
    """Equal for calls that count as the same."""
    return json.dumps([call.name, _normal(call.arguments)], sort_keys=True)


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value
