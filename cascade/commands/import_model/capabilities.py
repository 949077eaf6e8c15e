"""What a chat template can express: short conversations are encoded, which refuses what the template loses."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from cascade import chat
from cascade.chat import Message, ToolCall
from cascade.errors import RowError

_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["town"],
        },
    },
}
_SYSTEM = {"role": "system", "content": "Answer in one line."}
_USER = {"role": "user", "content": "How is the weather?"}
_REPLY = {"role": "assistant", "content": "It rains."}
_THOUGHT = {**_REPLY, "reasoning_content": "Somebody said so."}
_CALLS = [chat.message_call(ToolCall("weather", {"town": town, "days": 3})) for town in ("Wellington", "Oslo")]
_CALLING = {"role": "assistant", "content": "", "tool_calls": _CALLS[:1]}
_RESULT = {"role": "tool", "content": "14 degrees"}

_PROBES: tuple[tuple[str, str, list[Message], bool], ...] = (
    ("messages", "anything", [_USER, _REPLY], False),
    ("several turns", "conversations", [_USER, _REPLY, _USER, _REPLY], False),
    ("system turns", "rows with a system message", [_SYSTEM, _USER, _REPLY], False),
    ("thinking", "rollouts with thinking: true, demonstrations with reasoning", [_USER, _THOUGHT], False),
    ("tools", "tool_calling", [_USER], True),
    ("tool calls", "tool_calling, episodes", [_USER, _CALLING], True),
    ("several calls at once", "tool_calling with several calls", [_USER, {**_CALLING, "tool_calls": _CALLS}], True),
    ("tool results", "episodes", [_USER, _CALLING, _RESULT, _REPLY], True),
)


@dataclass(frozen=True)
class Capability:
    name: str
    problem: str | None
    """Why it cannot be expressed; None where it can."""
    needed_by: str
    """What cannot be trained without it."""


def capabilities(tokenizer: PreTrainedTokenizerBase) -> list[Capability]:
    """What the tokenizer's template keeps of messages, thinking, tools, calls and results."""
    return [
        Capability(name, _problem(tokenizer, messages, [_TOOL] if tools else None), needed_by)
        for name, needed_by, messages, tools in _PROBES
    ]


def _problem(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]] | None
) -> str | None:
    try:
        if messages[-1]["role"] == "assistant":
            chat.encode_conversation(tokenizer, messages, tools)
        else:
            chat.encode_checked_prompt(tokenizer, messages, tools)
    except RowError as error:
        return str(error).partition(";")[0]
    return None
