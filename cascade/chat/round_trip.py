"""The check that a rendered conversation holds all of its messages: nothing is lost silently.

A reply must come back when it is parsed. What the model reads (system and user messages, earlier replies, tools, their
results) must be in the text, in its order, as it is or as JSON writes it; blanks around a text do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cascade.chat.format import ChatFormat, written_forms
from cascade.chat.messages import Message, ToolCall
from cascade.errors import RowError

_WRITES = "give the base model a template that writes"
REMEDIES = {
    "template_loses_reasoning": f"{_WRITES} `reasoning_content` (cascade import --chat-template qwen3 or nemotron)",
    "template_loses_tools": f"{_WRITES} `tools` whole (cascade import --chat-template qwen3 or hermes)",
    "template_loses_calls": f"{_WRITES} `tool_calls` so that they are read back (cascade import --chat-template qwen3)",
    "template_loses_results": f"{_WRITES} the role `tool` (cascade import --chat-template qwen3, hermes or nemotron)",
    "template_loses_content": "give the base model another template, or the row another text",
}
"""For each reason what to do; docs/templates.md says which templates express what."""


def check_replies(
    chat_format: ChatFormat, messages: Sequence[Message], tools: list[dict] | None, found: Sequence[tuple[str, str]]
) -> None:
    """Raises RowError (a key of REMEDIES) where the texts of `cascade.chat.template.replies` do not hold everything."""
    replies = [i for i, m in enumerate(messages) if m["role"] == "assistant"][-len(found) :]
    shown = 0
    for index, (context, reply) in zip(replies, found, strict=True):
        if shown == 0:
            check_prompt(messages[:index], tools, context)
        else:
            _check_shown(messages, range(shown, index), context)
        _check_reply(chat_format, messages[index], index, tools, context, reply)
        shown = index + 1


def check_prompt(messages: Sequence[Message], tools: list[dict] | None, text: str) -> None:
    """Raises RowError (a key of REMEDIES) where the prompt's text does not show its messages and tools."""
    for tool in tools or []:
        for part in _parts_of_tool(tool):
            if _find(text, part, 0) < 0:
                raise _lost("template_loses_tools", f"{_short(part)} of the tool {_name(tool)}")
    _check_shown(messages, range(len(messages)), text)


def _check_shown(messages: Sequence[Message], indices: range, text: str) -> None:
    at = 0
    for index in indices:
        message = messages[index]
        code = "template_loses_results" if message["role"] == "tool" else "template_loses_content"
        end = _find(text, message.get("content") or "", at)
        if end < 0:
            raise _lost(code, f"the text of message {index} ({message['role']})")
        for call in message.get("tool_calls") or []:
            for part in (call["function"]["name"], *_leaves(call["function"]["arguments"])):
                found = _find(text, part, at)
                if found < 0:
                    raise _lost("template_loses_calls", f"{_short(part)} of a call in message {index}")
                end = max(end, found)
        at = end


def _check_reply(
    chat_format: ChatFormat, message: Message, index: int, tools: list[dict] | None, context: str, reply: str
) -> None:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    end = chat_format.call_end if calls else chat_format.end
    read = chat_format.parse(reply.removesuffix(end), context, tools=tools or calls)
    if (read.reasoning or "") != (message.get("reasoning_content") or "").strip():
        raise _lost("template_loses_reasoning", f"the reasoning of message {index}")
    if read.malformed or len(read.tool_calls) != len(calls) or not all(map(_same, calls, read.tool_calls)):
        raise _lost("template_loses_calls", f"a call of message {index}")
    if read.content != (message.get("content") or "").strip():
        raise _lost("template_loses_content", f"the text of message {index} (assistant)")


def _same(call: dict[str, Any], read: ToolCall) -> bool:
    """Whether a call came back. Formats that write text without quotes give 1 for "1", but know how it was written."""
    arguments = call["arguments"]
    return (
        call["name"] == read.name
        and arguments.keys() == read.arguments.keys()
        and all(value == read.arguments[key] or value == read.written.get(key) for key, value in arguments.items())
    )


def _parts_of_tool(tool: dict) -> Iterator[str]:
    """The names and descriptions of a tool and of its parameters, at all depths."""
    function = tool.get("function", tool)
    yield function["name"]
    yield function.get("description") or ""
    yield from _parts_of_schema(function.get("parameters"))


def _parts_of_schema(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for inner in schema:
            yield from _parts_of_schema(inner)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            yield name
            if isinstance(inner, dict) and isinstance(inner.get("description"), str):
                yield inner["description"]
        for inner in schema.values():
            if isinstance(inner, dict | list):
                yield from _parts_of_schema(inner)


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers of a call's arguments."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _find(text: str, part: str, at: int) -> int:
    """Where `part` ends in the text from `at` on; -1 where it is not there."""
    plain = part.strip()
    found = text.find(plain, at)
    if found >= 0:
        return found + len(plain)
    for form in written_forms(part):
        found = text.find(form, at)
        if found >= 0:
            return found + len(form)
    return -1


def _lost(code: str, what: str) -> RowError:
    return RowError(code, f"the chat template loses {what}; {REMEDIES[code]}")


def _name(tool: dict) -> str:
    return str(tool.get("function", tool).get("name"))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "…")
