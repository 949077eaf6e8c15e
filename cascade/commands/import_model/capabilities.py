"""What a chat template can express, found by rendering conversations and parsing them back."""

from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cascade import chat
from cascade.chat import Message, ToolCall
from cascade.errors import RowError

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "probe_weather",
            "description": "Weather of a town",
            "parameters": {
                "type": "object",
                "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["town"],
            },
        },
    }
]
_CALLS = [ToolCall("probe_weather", {"town": "Wellington", "days": 3}), ToolCall("probe_weather", {"town": "Oslo"})]


@dataclass(frozen=True)
class Capability:
    name: str
    problem: str | None
    """What is lost; None where nothing is."""
    needed_by: str
    """What cannot be trained without it."""


def capabilities(tokenizer: PreTrainedTokenizerBase) -> list[Capability]:
    """What the tokenizer's template keeps of thinking, tools, calls, results, system and earlier turns."""
    return [
        Capability(name, _problem(probe, tokenizer), needed_by)
        for name, probe, needed_by in (
            ("messages", _plain, "anything"),
            ("several turns", _turns, "conversations, episodes"),
            ("system turns", _system, "rows with a system message"),
            ("thinking", _thinking, "rollouts with thinking: true, demonstrations with reasoning"),
            ("tools", _tools, "tool_calling"),
            ("tool calls", _one_call, "tool_calling, episodes"),
            ("several calls at once", _two_calls, "tool_calling with parallel calls"),
            ("tool results", _results, "episodes, conversations with tools"),
        )
    ]


def _problem(probe: Callable[[PreTrainedTokenizerBase], str | None], tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        return probe(tokenizer)
    except RowError as error:
        return str(error)
    except (TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
        return f"the template fails ({' '.join(str(error).split())[:120] or type(error).__name__})"


def _user(text: str = "Probe question") -> Message:
    return {"role": "user", "content": text}


def _reply(content: str = "Probe answer", calls: list[ToolCall] | None = None, reasoning: str = "") -> Message:
    message: Message = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    return message


def _answered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict] | None = None, thinking: bool = False
) -> chat.Response:
    """The last message, trained on and parsed back from its tokens."""
    conversation = chat.encode_conversation(tokenizer, messages, tools)
    last = len(conversation.trained) - conversation.trained[::-1].index(True)
    first = last
    while first and conversation.trained[first - 1]:
        first -= 1
    text = str(tokenizer.decode(conversation.token_ids[first:last], skip_special_tokens=False))
    return chat.parse_response(text.removesuffix(str(tokenizer.eos_token)), thinking=thinking)


def _plain(tokenizer: PreTrainedTokenizerBase) -> str | None:
    messages = [_user(), _reply()]
    if "Probe question" not in chat.render(tokenizer, messages, thinking=False):
        return "the user's message is not in the text"
    return None if _answered(tokenizer, messages).content == "Probe answer" else "the answer is not read back"


def _turns(tokenizer: PreTrainedTokenizerBase) -> str | None:
    messages = [_user("First probe"), _reply("Earlier answer"), _user(), _reply()]
    text = chat.render(tokenizer, messages, thinking=False)
    lost = [part for part in ("First probe", "Earlier answer", "Probe question") if part not in text]
    return f"{lost[0]!r} of an earlier turn is not in the text" if lost else _plain(tokenizer)


def _system(tokenizer: PreTrainedTokenizerBase) -> str | None:
    messages = [{"role": "system", "content": "Probe rules"}, _user(), _reply()]
    return None if "Probe rules" in chat.render(tokenizer, messages, thinking=False) else "it is not in the text"


def _thinking(tokenizer: PreTrainedTokenizerBase) -> str | None:
    messages = [_user(), _reply(reasoning="Probe reasoning")]
    if "Probe reasoning" not in chat.render(tokenizer, messages, thinking=True):
        return "the reasoning is not in the text"
    response = _answered(tokenizer, messages, thinking=True)
    if (response.reasoning, response.content) != ("Probe reasoning", "Probe answer"):
        return "the reasoning is not read back"
    return None


def _tools(tokenizer: PreTrainedTokenizerBase) -> str | None:
    text = chat.render(tokenizer, [_user()], _TOOLS, thinking=False, for_generation=True)
    lost = [part for part in ("probe_weather", "Weather of a town", "days") if part not in text]
    return "they are not in the prompt" if len(lost) == 3 else f"{lost[0]!r} is not in the prompt" if lost else None


def _one_call(tokenizer: PreTrainedTokenizerBase) -> str | None:
    return _called(tokenizer, _CALLS[:1])


def _two_calls(tokenizer: PreTrainedTokenizerBase) -> str | None:
    return _called(tokenizer, _CALLS)


def _called(tokenizer: PreTrainedTokenizerBase, calls: list[ToolCall]) -> str | None:
    messages = [_user(), _reply("", calls)]
    if "Wellington" not in chat.render(tokenizer, messages, _TOOLS, thinking=False):
        return "a call is not in the text"
    response = _answered(tokenizer, messages, _TOOLS)
    return None if list(response.tool_calls) == calls else "a call is not read back"


def _results(tokenizer: PreTrainedTokenizerBase) -> str | None:
    messages = [_user(), _reply("", _CALLS[:1]), {"role": "tool", "content": "Probe result"}, _reply()]
    if "Probe result" not in chat.render(tokenizer, messages, _TOOLS, thinking=False):
        return "a result is not in the text"
    return None if _answered(tokenizer, messages, _TOOLS).content == "Probe answer" else "the answer is not read back"
