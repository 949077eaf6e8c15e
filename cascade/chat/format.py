"""What a tokenizer's chat template does, found by rendering short conversations and reading them back.

Templates differ in the token that ends a turn, in where they show reasoning, in how they write tool calls, and in the
form in which they want messages. None of it is declared; all of it shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import count, product
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from jinja2 import TemplateError

from cascade.chat.dialects import DIALECTS, TOOL_CALL, Dialect, json_object
from cascade.chat.messages import Message, Response, ToolCall
from cascade.chat.parsing import parse_response
from cascade.errors import CascadeError, RowError

if TYPE_CHECKING:
    # Importing it takes seconds, and reading a recipe does not need it.
    from transformers import PreTrainedTokenizerBase

OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
"""The end of a prompt that has opened a thought."""
MARK = "turnprobe"
"""What probes put where they look for the template's text. A word, so that no template escapes or trims it."""

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_DAY = date(2024, 7, 26)
"""What templates that write today's date get (Llama 3.1's own): the same rows give the same bytes on any day."""
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string", "description": "A text."}}},
    },
}
_CALL = ToolCall("probe", {"text": MARK, "number": 3, "yes": True, "list": ["a"]})


@dataclass(frozen=True)
class Shape:
    """The form in which a template wants tool calls."""

    ids: bool = False
    """Each call has an `id` of nine letters and digits, each result a `tool_call_id` (Mistral)."""
    text: bool = False
    """Arguments are JSON text (DeepSeek)."""


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[dict] | None,
    *,
    thinking: bool,
    for_generation: bool,
) -> str:
    """The template's text of messages in its own form. Raises RowError (`template`) where it cannot render them."""
    if not tokenizer.chat_template:
        raise CascadeError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; add one to it")
    schemas: Any = tools
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            tools=schemas,
            tokenize=False,
            add_generation_prompt=for_generation,
            **template_settings(thinking),
        )
    except (TemplateError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise RowError("template", f"the chat template cannot render the row: {error}") from None
    return str(text)


def template_settings(thinking: bool) -> dict[str, Any]:
    """The variables of a template beside messages and tools."""
    return {"enable_thinking": thinking, "thinking": thinking, "strftime_now": _DAY.strftime}


class ChatFormat:
    """`end`: the token that ends an assistant's turn; `call_end`: the same after tool calls (GLM has another one).
    `dialect`: how it writes tool calls; None where it writes none that any of the dialects reads.
    `response_template`: the tokenizer's own, with which transformers parses what none of the dialects reads.
    `reasoning_key`: the field of a message that it shows as reasoning; None where it shows none.
    `markers`: the tokens that begin and end turns. Within a message's text they would start another role's turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._reference = ref(tokenizer)
        self.shape = Shape()
        self.dialect: Dialect | None = None
        self.response_template: dict[str, Any] | None = None
        self.reasoning_key: str | None = None
        tokens = {token for token in tokenizer.get_added_vocab() if token.strip()}
        tokens |= {str(token) for token in tokenizer.all_special_tokens}
        self._tokens = re.compile("|".join(map(re.escape, sorted(tokens, key=lambda t: (-len(t), t)))) or r"(?!)")
        self.end = self.call_end = self._turn_end()
        self._find_calls()
        self.reasoning_key = next(filter(self._shows_reasoning, _REASONING_KEYS), None)
        self.markers = self._turn_markers()

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """Not held, so that the cache of formats lets tokenizers go."""
        tokenizer = self._reference()
        if tokenizer is None:
            raise ReferenceError("a ChatFormat lives no longer than its tokenizer")
        return tokenizer

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict] | None = None,
        *,
        thinking: bool = True,
        for_generation: bool = False,
    ) -> str:
        """The conversation as text. Raises RowError (`template`) where the template cannot render it."""
        shaped = self._shaped(messages)
        return apply_template(self._tokenizer, shaped, tools, thinking=thinking, for_generation=for_generation)

    def parse(self, text: str, prompt: str, *, tools: Sequence[dict] | None = None, finished: bool = True) -> Response:
        """Parse the text sampled after `prompt` (its last lines are enough), without the end-of-turn token.

        Where the prompt opens no thought, a text without `<think>` is an answer, whatever mode was asked for."""
        if self.response_template is not None:
            return self._parse_by_template(text, prompt, tools, finished)
        thinking = OPEN_THOUGHT.search(prompt) is not None
        dialect = self.dialect or TOOL_CALL
        return parse_response(text, thinking=thinking, finished=finished, dialect=dialect, tools=bool(tools))

    def reply(self, messages: Sequence[Message], index: int, tools: Sequence[dict] | None) -> tuple[str, str]:
        """The prompt of the assistant's message `index`, and the message with the token that ends its turn, as the
        model would sample it.

        Where the template rewrites what stands before a reply (Mistral's moves the system text), the prompt is the one
        that is sampled from. Raises RowError (`template`) where a reply does not follow its prompt's last message."""
        message = messages[index]
        thinking = bool(message.get("reasoning_content"))
        prompt = self.render(messages[:index], tools, thinking=thinking, for_generation=True)
        text = self.render(messages[: index + 1], tools, thinking=thinking)
        if text.startswith(prompt):
            written = text[len(prompt) :]
        else:
            written = _behind_thought(prompt, text, message) or _behind_last(prompt, text, messages[index - 1])
            if not written:
                reason = f"the chat template does not render message {index} as a continuation of its prompt"
                raise RowError("template", reason)
        end = self.call_end if message.get("tool_calls") else self.end
        # Behind it a template may write more (Phi-3's eos), or leave it to the next turn (GLM).
        at = written.rfind(end)
        return prompt, (written if at < 0 else written[:at]) + end

    def continuation(
        self,
        history: Sequence[Message],
        following: Sequence[Message],
        tools: Sequence[dict] | None = None,
        *,
        thinking: bool,
    ) -> str:
        """What stands between the end of the assistant's turn that ends `history` and its next turn: the messages
        `following` and the next header.

        It does not depend on how the template rewrites earlier turns (Qwen3 takes thoughts out of them): the last
        turn's text is replaced by a mark, and what is behind the mark counts. Raises RowError (`template`) where
        the template does not show that."""
        last = dict(history[-1])
        if last.get("tool_calls"):
            *calls, call = last["tool_calls"]
            marked = {**call, "function": {**call["function"], "arguments": {"text": MARK}}}
            last |= {"content": "", "tool_calls": [*calls, marked]}
        else:
            last["content"] = MARK
        text = self.render([*history[:-1], last, *following], tools, thinking=thinking, for_generation=True)
        _, mark, rest = text.partition(MARK)
        end = re.search(f"{re.escape(self.end)}|{re.escape(self.call_end)}", rest)
        if end is not None:
            return rest[end.end() :]
        if mark and not last.get("tool_calls"):
            return rest  # The end is the tokenizer's, and the template knows of none.
        raise RowError("template", "the chat template does not render what follows an assistant's turn")

    @property
    def takes_messages_as_they_are(self) -> bool:
        return self.shape == Shape() and self.reasoning_key in (None, "reasoning_content")

    def _shaped(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages in the form that the template wants."""
        shape, key = self.shape, self.reasoning_key
        if self.takes_messages_as_they_are:
            return messages
        numbers = count()
        unanswered: list[str] = []
        shaped = []
        for message in messages:
            message = dict(message)
            if key is not None and message.get("reasoning_content"):
                message[key] = message.pop("reasoning_content")
            if message.get("tool_calls"):
                calls = [_shaped_call(call, shape, f"call{next(numbers):05}") for call in message["tool_calls"]]
                message["tool_calls"] = calls
                unanswered = [call["id"] for call in calls if "id" in call]
            elif shape.ids and message["role"] == "tool":
                identity = unanswered.pop(0) if unanswered else f"call{next(numbers):05}"
                message.setdefault("tool_call_id", identity)
            shaped.append(message)
        return shaped

    def _turn_end(self) -> str:
        replied = [{"role": "user", "content": "probe"}, {"role": "assistant", "content": MARK}]
        for following in ([], [{"role": "user", "content": "next"}]):
            with suppress(RowError):
                text = self.render([*replied, *following], thinking=False)
                token = self._tokens.search(text.partition(MARK)[2].partition("next")[0])
                if token is not None:
                    return token[0]
        if not self._tokenizer.eos_token:
            raise CascadeError(
                f"{self._tokenizer.name_or_path}: the chat template ends an assistant's turn with no token, and the "
                "tokenizer has no eos_token; give it one"
            )
        return str(self._tokenizer.eos_token)

    def _find_calls(self) -> None:
        """The first form and dialect in which a call comes back."""
        user: Message = {"role": "user", "content": "probe"}
        called: list[Message] = [user, {"role": "assistant", "content": "", "tool_calls": [message_call(_CALL)]}]
        own = getattr(self._tokenizer, "response_template", None)
        readers: list[Dialect | None] = [*DIALECTS, *([None] if own else [])]
        for ids, text in product((False, True), repeat=2):
            self.shape = Shape(ids, text)
            with suppress(RowError):
                prompt, written = self.reply(called, 1, [_TOOL])
                body = written.removesuffix(self.end)
                for dialect in readers:
                    self.dialect, self.response_template = dialect, own if dialect is None else None
                    found = self.parse(body, prompt, tools=[_TOOL])
                    if found.tool_calls == (_CALL,) and not found.content:
                        self.call_end = self._end_of_calls(called, body)
                        return
        self.shape, self.dialect, self.response_template = Shape(), None, own

    def _end_of_calls(self, called: list[Message], body: str) -> str:
        behind = self.render(called, [_TOOL], thinking=False).rpartition(MARK)[2]
        if self.end in behind:
            return self.end
        if self.response_template is not None:
            return self._tokens.findall(behind)[-1]
        text = self.render([*called, {"role": "tool", "content": "result"}], [_TOOL], thinking=False)
        token = self._tokens.search(text, text.rindex(body) + len(body))
        return self.end if token is None else token[0]

    def _shows_reasoning(self, key: str) -> bool:
        self.reasoning_key = key
        message = {"role": "assistant", "content": "done", "reasoning_content": MARK}
        with suppress(RowError):
            prompt, written = self.reply([{"role": "user", "content": "probe"}, message], 1, None)
            found = self.parse(written.removesuffix(self.end), prompt)
            return (found.reasoning, found.content) == (MARK, "done")
        return False

    def _parse_by_template(self, text: str, prompt: str, tools: Sequence[dict] | None, finished: bool) -> Response:
        schema: Any = self.response_template
        try:
            found = self._tokenizer.parse_response(text, schema, prefix=prompt, tools=list(tools or []))
            functions = [call["function"] for call in found.get("tool_calls") or []]
            calls = [ToolCall(f["name"], json_object(f.get("arguments") or {})) for f in functions]
            reasoning = next((found[key] for key in _REASONING_KEYS if found.get(key)), None)
            return Response(
                (found.get("content") or "").strip(), reasoning and reasoning.strip(), tuple(calls), finished
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # It raises where calls are not what they should be.
            return Response(text.strip(), finished=finished, malformed=" ".join(str(error).split()))

    def _turn_markers(self) -> re.Pattern[str]:
        user, assistant = {"role": "user", "content": "probe"}, {"role": "assistant", "content": MARK}
        found = {self.end, self.call_end}
        for system in ([], [{"role": "system", "content": "probe"}]):
            with suppress(RowError):
                text = self.render([*system, user, assistant, user], thinking=False, for_generation=True)
                found.update(self._tokens.findall(text))
        if self._tokenizer.eos_token:
            found.add(str(self._tokenizer.eos_token))
        found &= set(self._tokenizer.get_added_vocab())
        return re.compile("|".join(map(re.escape, sorted(found - {"<think>", "</think>"}))) or r"(?!)")


_FORMATS: WeakKeyDictionary[Any, tuple[Any, ChatFormat]] = WeakKeyDictionary()


def format_of(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The tokenizer's ChatFormat, found once. Raises CascadeError where it has no chat template."""
    key = (tokenizer.chat_template, tokenizer.eos_token)
    known = _FORMATS.get(tokenizer)
    if known is None or known[0] != key:
        known = _FORMATS[tokenizer] = (key, ChatFormat(tokenizer))
    return known[1]


def message_call(call: ToolCall) -> dict[str, Any]:
    """A call as it stands in a message's `tool_calls`."""
    identity = {"id": call.id} if call.id else {}
    return {"type": "function", **identity, "function": {"name": call.name, "arguments": call.arguments}}


def _shaped_call(call: dict, shape: Shape, identity: str) -> dict:
    function = call["function"]
    if shape.text and not isinstance(function["arguments"], str):
        function = {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return {**call, "function": function, **({"id": call.get("id") or identity} if shape.ids else {})}


def _behind_thought(prompt: str, text: str, message: Message) -> str:
    """What follows a prompt that opens a thought, where the template does not render it (DeepSeek); empty elsewhere."""
    opening = OPEN_THOUGHT.search(prompt)
    if opening is None or not text.startswith(prompt[: opening.start()]):
        return ""
    rest = text[opening.start() :]
    closing = "" if rest.startswith("</think>") else "\n</think>\n\n" if opening[0].endswith("\n") else "</think>"
    return (message.get("reasoning_content") or "") + closing + rest


def _behind_last(prompt: str, text: str, last: Message) -> str:
    """What follows the prompt's last message and the header behind it; empty where the text does not have both."""
    for form in written_forms(last.get("content") or ""):
        at = prompt.rfind(form) if form else -1
        if at >= 0:
            _, found, written = text.rpartition(prompt[at:])
            return written if found else ""
    return ""


def written_forms(text: str) -> tuple[str, str, str]:
    """A message's text as templates write it: as it is, blanks around it aside, or within JSON."""
    text = text.strip()
    return text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
