"""Messages → text → tokens: the tokenizer's own chat template, thinking modes, loss masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from cascade.chat.format import format_of
from cascade.chat.messages import Message
from cascade.chat.round_trip import check_prompt, check_replies
from cascade.errors import RowError

if TYPE_CHECKING:
    # Importing it takes seconds, and reading a recipe does not need it.
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Conversation:
    """Token ids of a whole conversation, and for each whether it is trained on."""

    token_ids: list[int]
    trained: list[bool] = field(default_factory=list)


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: list[dict] | None = None,
    *,
    thinking: bool = True,
    for_generation: bool = False,
) -> str:
    """The conversation as text, by the tokenizer's chat template."""
    return format_of(tokenizer).render(messages, tools, thinking=thinking, for_generation=for_generation)


def turn_markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """The tokens that begin and end a turn. Within a message's text they would start another role's turn."""
    return format_of(tokenizer).markers


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


def encode_checked_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[dict] | None = None
) -> list[int]:
    """As encode_prompt. Raises RowError (`template_loses_…`) where the prompt does not show all of its row."""
    text = render(tokenizer, messages, tools, for_generation=True)
    check_prompt(messages, tools, text)
    return encode(tokenizer, text)


def replies(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[dict] | None = None
) -> list[tuple[str, str]]:
    """What the assistant wrote after the last user message: for each reply the text since the one before, and the reply
    with its end-of-turn token.

    Raises RowError: `no_reply` (nothing after the last user message), `template` (what the template does not render,
    or not as a continuation of its prompt).
    """
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    indices = [i for i, m in enumerate(messages) if i > last_user and m["role"] == "assistant"]
    if not indices:
        raise RowError("no_reply", "the conversation has no assistant message after the last user message")
    chat_format = format_of(tokenizer)
    found: list[tuple[str, str]] = []
    rendered, written = "", 0
    for index in indices:
        prompt, reply = chat_format.reply(messages, index, tools)
        if prompt.startswith(rendered):
            context = prompt[len(rendered) :]
        else:
            # The template rewrites earlier turns, which stay as they were sampled.
            thinking = bool(messages[index].get("reasoning_content"))
            context = chat_format.continuation(messages[:written], messages[written:index], tools, thinking=thinking)
        found.append((context, reply))
        rendered, written = prompt + reply, index + 1
    return found


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[dict] | None = None
) -> Conversation:
    """Token ids and loss mask. Trained: what the assistant wrote after the last user message.

    The template drops the reasoning of earlier assistant turns, as in inference, so they are context here;
    `split_turns` makes one example for each of them.

    Raises RowError: those of `replies`, and `template_loses_…` where something of the conversation is not in the text,
    or does not come back when the replies are parsed.
    """
    found = replies(tokenizer, messages, tools)
    check_replies(format_of(tokenizer), messages, tools, found)
    token_ids: list[int] = []
    trained: list[bool] = []
    for texts in found:
        for text, is_trained in zip(texts, (False, True), strict=True):
            ids = encode(tokenizer, text)
            token_ids += ids
            trained += [is_trained] * len(ids)
    return Conversation(token_ids, trained)


def split_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation cut after each user message's replies: one training example for each user message."""
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return [list(messages[:end]) for start, end in pairwise([*starts, len(messages)]) if end > start + 1]
