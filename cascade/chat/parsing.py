"""Text → response: reasoning, tool calls, malformed calls."""

from __future__ import annotations

import json
import re
from typing import Any

from cascade.chat.messages import Response, ToolCall

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?")
_PARAMETER_END = re.compile(r"</parameter>\s*(?=<parameter\b|(?P<last></function>\s*</tool_call>))")
_FUNCTION_END = re.compile(r"</function>\s*</tool_call>")
_THOUGHT = re.compile(r"\s*<(think|thinking)>")
_SWALLOWED = re.compile(r"^<parameter=|</function>\s*</tool_call>\s*<tool_call>", re.MULTILINE)
"""What a value holds that ran on past its end, because a tag is missing there."""


def parse_response(text: str, *, thinking: bool, finished: bool = True) -> Response:
    """Parse the text sampled after the prompt, without the end-of-turn token.

    In thinking mode everything up to `</think>` is reasoning; where it is missing there is no answer. A response that
    starts with `<think>` is in thinking mode, whatever `thinking` says, and so is one that starts with `<thinking>`, up
    to `</thinking>`.

    A tag within a parameter's value is text: a value ends where the next parameter, or the call's end, follows.
    Ambiguous tags and text between parameters make the call malformed, so that no argument is lost silently."""
    reasoning: str | None = None
    while (opening := _THOUGHT.match(text)) or thinking:
        name = opening[1] if opening and not thinking else "think"
        thought, closed, text = text.lstrip().removeprefix(f"<{name}>").partition(f"</{name}>")
        reasoning = f"{reasoning}\n{thought.strip()}" if reasoning is not None else thought.strip()
        if not closed:
            return Response("", reasoning, finished=finished)
        thinking = False
    calls: list[ToolCall] = []
    content: list[str] = []
    malformed: str | None = None
    at = 0
    while (start := text.find(_OPEN, at)) >= 0:
        content.append(text[at:start])
        start += len(_OPEN)
        try:
            call, at = _read_tool_call(text, start)
            calls.append(call)
        except ValueError as error:
            malformed = str(error)
            end = text.find(_CLOSE, start)
            if end < 0:
                malformed = "a <tool_call> that is not closed"
                content.append(text[start - len(_OPEN) :])
                at = len(text)
            else:
                at = end + len(_CLOSE)
    content.append(text[at:])
    return Response("".join(content).strip(), reasoning, tuple(calls), finished, malformed)


def render_tool_call(call: ToolCall) -> str:
    """A call in Nemotron's format."""
    values = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in call.arguments.items()}
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


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


_BLANK = re.compile(r"\s*")


def _read_tool_call(text: str, at: int) -> tuple[ToolCall, int]:
    """The call whose `<tool_call>` ends at `at`, and where its `</tool_call>` ends. Raises ValueError."""
    function = _FUNCTION.match(text, at)
    if function is not None:
        written, at = _read_parameters(text, function.end())
        return ToolCall(function[1].strip(), {name: _typed(value) for name, value in written.items()}, written), at
    # Some models write the older JSON form inside the same tags.
    try:
        call, at = _JSON.raw_decode(text, _end(_BLANK, text, at))
        at = _end(_BLANK, text, at)
        if text.startswith(_CLOSE, at):
            return ToolCall(call["name"], json_object(call.get("arguments", {}))), at + len(_CLOSE)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _typed(value: str) -> Any:
    """Parameters are written as plain text: JSON where it reads as JSON (numbers, booleans, lists), else a string."""
    try:
        return read_json(value)
    except (ValueError, RecursionError):
        return value
