"""Messages ↔ tokens: the tokenizer's own template, thinking modes, loss masks, tool-call parsing.

A conversation is a list of OpenAI-style messages (`role`, `content`, and for assistants optionally
`reasoning_content` and `tool_calls`). The template is the checkpoint's own; what it must have is the
prefix property: the prompt rendered for generation is a prefix of the finished conversation. Nemotron's
template has it. The response is what follows the prompt up to and including the end-of-turn token: the
same tokens are sampled in RL and trained on in SFT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cascade.errors import CascadeError, RowError

if TYPE_CHECKING:
    # Importing it takes seconds, and a recipe is read without it.
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Row = dict[str, Any]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?")
_PARAMETER_END = re.compile(r"</parameter>\s*(?=<parameter\b|(?P<last></function>\s*</tool_call>))")
_FUNCTION_END = re.compile(r"</function>\s*</tool_call>")
_SWALLOWED = re.compile(r"^<parameter=|</function>\s*</tool_call>\s*<tool_call>", re.MULTILINE)
"""What a value holds that ran on past its end, because a tag is missing there."""


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]
    written: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Arguments as text, where the call was written so: `arguments` has 1 for `1`, and no longer knows of `1.0`."""

    def text(self, name: str) -> str | None:
        """The argument as it was written; None where it is missing or not text."""
        value = self.written.get(name, self.arguments.get(name))
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Response:
    """What the assistant answered, taken apart.

    `finished` is False when the response ran into its length limit. `malformed` says in words why a tool
    call could not be read; environments treat it as a wrong answer, not as a failure.
    """

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finished: bool = True
    malformed: str | None = None


@dataclass(frozen=True)
class Conversation:
    """Token ids of a whole conversation, and for each whether it is trained on."""

    token_ids: list[int]
    trained: list[bool] = field(default_factory=list)


def prompt_of(row: Row) -> tuple[list[Message], list[dict] | None]:
    """The messages and tools of a NeMo Gym row (`responses_create_params`).

    Raises RowError (`no_prompt`) when there is nothing to answer.
    """
    params = row.get("responses_create_params")
    if not isinstance(params, dict) or not params.get("input"):
        raise RowError("no_prompt", "the row has no responses_create_params.input")
    source = params["input"]
    items = [{"role": "user", "content": source}] if isinstance(source, str) else source
    messages = [_message_from_item(item) for item in items]
    return messages, [_tool_schema(tool) for tool in params.get("tools") or []] or None


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: list[dict] | None = None,
    *,
    thinking: bool = True,
    for_generation: bool = False,
) -> str:
    """The conversation as text, by the tokenizer's chat template."""
    if not tokenizer.chat_template:
        raise CascadeError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; add one to it")
    schemas: list[Any] | None = tools
    text = tokenizer.apply_chat_template(
        list(messages), tools=schemas, tokenize=False, add_generation_prompt=for_generation, enable_thinking=thinking
    )
    return str(text)


def turn_markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """The tokens that begin and end a turn. In somebody's text they would put words into another role's mouth."""
    markers = {tokenizer.eos_token, "<|im_start|>", "<|im_end|>"} & set(tokenizer.get_added_vocab())
    return re.compile("|".join(map(re.escape, sorted(markers))) or r"(?!)")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: list[dict] | None = None,
    thinking: bool = True,
) -> list[int]:
    """Token ids of the prompt, up to where the assistant begins to write."""
    return encode(tokenizer, render(tokenizer, messages, tools, thinking=thinking, for_generation=True))


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[dict] | None = None
) -> Conversation:
    """Token ids and loss mask. Trained: what the assistant wrote after the last user message.

    Earlier assistant turns have lost their reasoning in the rendering, as they do when the model is used,
    so they are context here; `split_turns` makes each of them the end of an example of its own.

    Raises RowError: `no_reply` (nothing after the last user message), `template` (no prefix property).
    """
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    replies = [i for i, m in enumerate(messages) if i > last_user and m["role"] == "assistant"]
    if not replies:
        raise RowError("no_reply", "the conversation has no assistant message after the last user message")
    token_ids: list[int] = []
    trained: list[bool] = []
    done = ""
    for index in replies:
        thinking = bool(messages[index].get("reasoning_content"))
        prompt = render(tokenizer, messages[:index], tools, thinking=thinking, for_generation=True)
        text = render(tokenizer, messages[: index + 1], tools, thinking=thinking)
        if not (prompt.startswith(done) and text.startswith(prompt)):
            raise RowError(
                "template", f"the chat template does not render message {index} as a continuation of its prompt"
            )
        end = text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)
        for part, is_trained in ((prompt[len(done) :], False), (text[len(prompt) : end], True)):
            ids = encode(tokenizer, part)
            token_ids += ids
            trained += [is_trained] * len(ids)
        done = text[:end]
    return Conversation(token_ids, trained)


def split_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation cut after each user message's replies: one training example a user message."""
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return [list(messages[:end]) for start, end in pairwise([*starts, len(messages)]) if end > start + 1]


def parse_response(text: str, *, thinking: bool, finished: bool = True) -> Response:
    """Take apart what was sampled after the prompt (end-of-turn token already cut off).

    In thinking mode everything up to `</think>` is reasoning; where it is missing there is no answer. A response that
    opens a thought by itself is in thinking mode, whatever was asked for.

    A tag within a parameter's value is text: a value ends where the next parameter, or the call's end, follows. What
    the tags leave in doubt, or between them, is malformed, not left out: a call may not lose an argument unnoticed.
    """
    reasoning: str | None = None
    while thinking or text.lstrip().startswith("<think>"):
        thought, closed, text = text.lstrip().removeprefix("<think>").partition("</think>")
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
    """A call as Nemotron writes it."""
    values = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in call.arguments.items()}
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


def response_from_openai(response: Any) -> Response:
    """A Response from plain text or from an OpenAI Responses object (`output` items).

    Raises RowError (`bad_response`) when it is neither.
    """
    if isinstance(response, str):
        return parse_response(response, thinking="</think>" in response)
    if not isinstance(response, dict) or not isinstance(response.get("output"), list):
        raise RowError("bad_response", "`response` is neither text nor an OpenAI Responses object with `output`")
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    malformed = None
    for item in response["output"]:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role", "assistant") == "assistant":
            content.append(text_of(item.get("content")))
        elif kind == "reasoning":
            reasoning.append(text_of(item.get("content") or item.get("summary")))
        elif kind == "function_call":
            try:
                calls.append(ToolCall(item["name"], json_object(item.get("arguments") or "{}")))
            except ValueError as error:
                malformed = f"arguments of {item.get('name')}: {error}"
    text, thought = "\n".join(content), "\n".join(reasoning)
    # Where the thought stands in an item of its own, `</think>` in the answer is text.
    parsed = parse_response(text, thinking="</think>" in text and not thought.strip())
    details = response.get("incomplete_details") or {}
    return Response(
        parsed.content,
        thought or parsed.reasoning,
        tuple(calls) + parsed.tool_calls,
        details.get("reason") != "max_output_tokens",
        malformed or parsed.malformed,
    )


def read_json(text: str) -> Any:
    """What the text says as JSON, which has no NaN and no Infinity. Raises ValueError."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def json_object(value: Any) -> dict[str, Any]:
    """A JSON object given as text or already read. Raises ValueError otherwise."""
    if isinstance(value, str):
        value = read_json(value)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


_JSON = json.JSONDecoder(parse_constant=_no_constant)
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


def text_of(content: Any) -> str:
    """The text of a message's `content`, given as text or as a list of parts."""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
    return content or ""


def _message_from_item(item: dict) -> Message:
    """One item of an OpenAI Responses input as a chat message."""
    kind = item.get("type", "message")
    if kind == "function_call":
        call = {"name": item["name"], "arguments": json_object(item.get("arguments") or "{}")}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    if kind == "function_call_output":
        return {"role": "tool", "content": text_of(item.get("output"))}
    if "role" not in item:
        raise RowError("no_prompt", f"an input item of type {kind!r} has no role")
    role = "system" if item["role"] == "developer" else item["role"]
    extra = {key: item[key] for key in ("reasoning_content", "tool_calls") if item.get(key)}
    return {"role": role, "content": text_of(item.get("content")), **extra}


def _tool_schema(tool: dict) -> dict:
    """The chat-completions form of a tool, which templates expect; the Responses form is flat."""
    if "function" in tool:
        return tool
    return {"type": "function", "function": {k: tool[k] for k in ("name", "description", "parameters") if k in tool}}
