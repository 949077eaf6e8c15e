"""How the chat templates of model families write tool calls: one table, with what reads each.

Templates write calls, so that a model sees and is trained on its own form. What a template writes is recognised by
reading it back (`cascade.chat.format`), not by its name.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cascade.chat.messages import ToolCall


@dataclass(frozen=True)
class Dialect:
    name: str
    opening: re.Pattern[str]
    """Where calls begin in a response."""
    closing: str
    """What ends calls: behind it the response goes on after calls that cannot be read. Empty: its end."""
    read: Callable[[str, int], tuple[list[ToolCall], int]]
    """The calls that begin at an index, and where they end. Raises ValueError."""
    tagged: bool = True
    """False: calls are bare JSON, which is a call only where the prompt has tools."""


def read_json(text: str) -> Any:
    """Parse JSON, which has no NaN and no Infinity. Raises ValueError."""
    return _JSON.decode(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def json_object(value: Any) -> dict[str, Any]:
    """A JSON object given as text or already read. Raises ValueError otherwise."""
    if isinstance(value, str):
        value = read_json(value)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def render_tool_call(call: ToolCall) -> str:
    """A call in Nemotron's format."""
    values = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in call.arguments.items()}
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


_CONSTANTS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_BLANK = re.compile(r"\s*")


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _decode(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at `at` or behind blanks, and where it ends. Raises ValueError."""
    try:
        return _JSON.raw_decode(text, _end(_BLANK, text, at))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _json_call(call: Any, arguments: tuple[str, ...] = ("arguments",)) -> ToolCall:
    """A call given as a JSON object with `name` and one of the keys `arguments`. Raises ValueError."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("a tool call without a name")
    given: Any = next((call[key] for key in arguments if key in call), {})
    identity = call.get("id")
    return ToolCall(call["name"], json_object(given), id=identity if isinstance(identity, str) else "")


def _typed(value: str) -> Any:
    """Parameters are written as plain text: JSON where it reads as JSON (numbers, booleans, lists), else a string."""
    try:
        return read_json(value)
    except (ValueError, RecursionError):
        return value


def _typed_by_python(value: str) -> Any:
    return _CONSTANTS[value] if value in ("True", "False", "None") else _typed(value)


# <tool_call>, with Nemotron's XML or JSON inside.

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?")
_PARAMETER_END = re.compile(r"</parameter>\s*(?=<parameter\b|(?P<last></function>\s*</tool_call>))")
_FUNCTION_END = re.compile(r"</function>\s*</tool_call>")
_SWALLOWED = re.compile(r"^<parameter=|</function>\s*</tool_call>\s*<tool_call>", re.MULTILINE)
"""What a value holds that ran on past its end, because a tag is missing there."""


def _read_tool_call(text: str, at: int, typed: Callable[[str], Any] = _typed) -> tuple[list[ToolCall], int]:
    """The call whose `<tool_call>` ends at `at`, and where its `</tool_call>` ends. Raises ValueError."""
    function = _FUNCTION.match(text, at)
    if function is not None:
        written, at = _read_parameters(text, function.end())
        values = {name: typed(value) for name, value in written.items()}
        return [ToolCall(function[1].strip(), values, written)], at
    try:
        call, at = _decode(text, at)
        at = _end(_BLANK, text, at)
        if text.startswith(_CLOSE, at):
            return [_json_call(call)], at + len(_CLOSE)
    except ValueError:
        pass
    raise ValueError("a tool call that is neither <function=…> nor JSON")


def _read_parameters(text: str, at: int) -> tuple[dict[str, str], int]:
    """The parameters that begin at `at`, as they are written, and where the call ends. Raises ValueError."""
    written: dict[str, str] = {}
    while (opening := _PARAMETER.match(text, at)) is not None:
        name = opening[1].strip()
        closing = _closing(text, opening.end())
        if closing is None:
            raise ValueError(f"the parameter {name} is not closed")
        value = text[opening.end() : closing.start()].removesuffix("\n")
        # In the form with each value on lines of its own, a tag within a line is a mention.
        swallowed = (_SWALLOWED if opening[0].endswith("\n") else _PARAMETER).search(value)
        if swallowed and "<function=" not in value[: swallowed.start()]:
            raise ValueError(f"the parameter {name} is not closed")
        if name in written:
            raise ValueError(f"the parameter {name} is given twice")
        written[name] = value
        at = closing.end()
    ending = _FUNCTION_END.match(text, at)
    if ending is None:
        raise ValueError("a call with something in it that is no <parameter=…>…</parameter>")
    return written, ending.end()


def _closing(text: str, at: int) -> re.Match[str] | None:
    """Where the value that begins at `at` ends. A call's end that is followed by another one was part of a value."""
    for closing in _PARAMETER_END.finditer(text, at):
        if closing["last"] is None:
            return closing
        after = text.find(_OPEN, closing.end("last"))
        if not _FUNCTION_END.search(text, closing.end("last"), after if after >= 0 else len(text)):
            return closing
    return None


# GLM: the name, then <arg_key> and <arg_value> in turn.

_GLM_NAME = re.compile(r"\s*([^\s<{]+)\s*(?=<arg_key>|</tool_call>)")
_GLM_VALUE = re.compile(r"<arg_key>([^<\n]+)</arg_key>\s*<arg_value>")
_GLM_VALUE_END = re.compile(r"</arg_value>\s*(?=<arg_key>|</tool_call>)")


def _read_glm(text: str, at: int) -> tuple[list[ToolCall], int]:
    name = _GLM_NAME.match(text, at)
    if name is None:
        raise ValueError("a tool call without a name")
    written: dict[str, str] = {}
    at = name.end()
    while (opening := _GLM_VALUE.match(text, at)) is not None:
        closing = _GLM_VALUE_END.search(text, opening.end())
        if closing is None:
            raise ValueError(f"the argument {opening[1]} is not closed")
        if opening[1] in written:
            raise ValueError(f"the argument {opening[1]} is given twice")
        written[opening[1]] = text[opening.end() : closing.start()]
        at = closing.end()
    if not text.startswith(_CLOSE, at):
        raise ValueError("a call with something in it that is no argument")
    return [ToolCall(name[1], {key: _typed(value) for key, value in written.items()}, written)], at + len(_CLOSE)


# Llama 3.1 to 3.3: the whole response is JSON.

_LLAMA_OPENING = re.compile(
    r'\A\s*(?:<\|python_tag\|>)?\s*(?=\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"[^"\n]*"\s*,'
    r'\s*"(?:parameters|arguments)"\s*:)'
)
_LLAMA_BETWEEN = re.compile(r"\s*;\s*")


def _read_llama(text: str, at: int) -> tuple[list[ToolCall], int]:
    calls = []
    while True:
        call, at = _decode(text, at)
        calls.append(_json_call(call, ("parameters", "arguments")))
        between = _LLAMA_BETWEEN.match(text, at)
        if between is None:
            break
        at = between.end()
    if text[at:].strip():
        raise ValueError("text after a call that is the whole response")
    return calls, len(text)


# Mistral: a JSON list, or in later models name[ARGS]{…} for each call.

_MISTRAL_NAME = re.compile(r"\s*([^\s\[\]{}]+)\s*(?:\[CALL_ID\]([^\s\[\]{}]+)\s*)?(?:\[ARGS\])?(?=\s*\{)")


def _read_mistral(text: str, at: int) -> tuple[list[ToolCall], int]:
    name = _MISTRAL_NAME.match(text, at)
    if name is not None:
        arguments, at = _decode(text, name.end())
        return [ToolCall(name[1], json_object(arguments), id=name[2] or "")], at
    calls, at = _decode(text, at)
    if not isinstance(calls, list) or not calls:
        raise ValueError("[TOOL_CALLS] without a list of calls")
    return [_json_call(call) for call in calls], at


# DeepSeek: V3 and R1 write the arguments as a block of code, V3.1 as bare JSON.

_DEEPSEEK_CALL = re.compile(
    r"\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<fenced>[^\n<]+)\n```json\n|(?P<bare>[^\n<]+)<｜tool▁sep｜>)"
)
_DEEPSEEK_CALL_END = re.compile(r"\s*(?:```)?<｜tool▁call▁end｜>")
_DEEPSEEK_END = re.compile(r"\s*<｜tool▁calls▁end｜>")


def _read_deepseek(text: str, at: int) -> tuple[list[ToolCall], int]:
    calls = []
    while (opening := _DEEPSEEK_CALL.match(text, at)) is not None:
        arguments, at = _decode(text, opening.end())
        closing = _DEEPSEEK_CALL_END.match(text, at)
        if closing is None:
            raise ValueError("a call that is not closed")
        calls.append(ToolCall(opening["fenced"] or opening["bare"], json_object(arguments)))
        at = closing.end()
    ending = _DEEPSEEK_END.match(text, at)
    if ending is None or not calls:
        raise ValueError("calls with something between them that is no call")
    return calls, ending.end()


# LFM2: Python's calls in a list.

_LFM_CLOSE = "<|tool_call_end|>"


def _read_lfm(text: str, at: int) -> tuple[list[ToolCall], int]:
    end = text.find(_LFM_CLOSE, at)
    if end < 0:
        raise ValueError("calls that are not closed")
    try:
        parsed = ast.parse(text[at:end].strip(), mode="eval").body
        if not isinstance(parsed, ast.List) or not parsed.elts:
            raise ValueError("not a list of calls")
        return [_python_call(node) for node in parsed.elts], end + len(_LFM_CLOSE)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not Python's calls ({type(error).__name__})") from None


def _python_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args or not isinstance(node.func, ast.Name | ast.Attribute):
        raise ValueError("not a call with named arguments alone")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError("an argument without a name, or given twice")
        arguments[keyword.arg] = _python_value(keyword.value)
    return ToolCall(ast.unparse(node.func), arguments)


def _python_value(node: ast.expr | None) -> Any:
    """A literal of Python or of JSON."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return node.value
        case ast.Name(id="true" | "false" | "null"):
            return _CONSTANTS[node.id]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List():
            return [_python_value(element) for element in node.elts]
        case ast.Dict():
            keys = [_python_value(key) for key in node.keys]
            if all(isinstance(key, str) for key in keys):
                return dict(zip(keys, map(_python_value, node.values), strict=True))
    raise ValueError("an argument that is no literal")


TOOL_CALL = Dialect("tool_call", re.compile(_OPEN), _CLOSE, _read_tool_call)
"""Nemotron, Qwen3-Coder and Qwen3.5 (`<function=…>`); Hermes, Qwen2.5, Qwen3 (JSON). What is read where a template
writes no calls at all."""
DIALECTS = (
    TOOL_CALL,
    # Nemotron 3 and Qwen3.5 write the booleans and null of XML as Python does.
    Dialect("python xml", TOOL_CALL.opening, _CLOSE, partial(_read_tool_call, typed=_typed_by_python)),
    Dialect("glm", re.compile(_OPEN), _CLOSE, _read_glm),
    Dialect("llama", _LLAMA_OPENING, "", _read_llama, tagged=False),
    Dialect("mistral", re.compile(r"\[TOOL_CALLS\]"), "", _read_mistral),
    Dialect("deepseek", re.compile("<｜tool▁calls▁begin｜>"), "<｜tool▁calls▁end｜>", _read_deepseek),
    Dialect("lfm", re.compile(r"<\|tool_call_start\|>"), _LFM_CLOSE, _read_lfm),
)
