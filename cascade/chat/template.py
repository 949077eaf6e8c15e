"""Messages → text → tokens: the tokenizer's own chat template, thinking modes, loss masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cascade.chat.messages import Message
from cascade.errors import CascadeError, RowError

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
    if not tokenizer.chat_template:
        raise CascadeError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; add one to it")
    schemas: list[Any] | None = tools
    text = tokenizer.apply_chat_template(
        list(messages), tools=schemas, tokenize=False, add_generation_prompt=for_generation, enable_thinking=thinking
    )
    return str(text)


def turn_markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """The tokens that begin and end a turn. Within a message's text they would start another role's turn."""
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
    """Token ids and loss mask of `conversation_pieces`, whose errors it raises."""
    token_ids: list[int] = []
    trained: list[bool] = []
    for part, is_trained in conversation_pieces(tokenizer, messages, tools):
        ids = encode(tokenizer, part)
        token_ids += ids
        trained += [is_trained] * len(ids)
    return Conversation(token_ids, trained)


def conversation_pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[dict] | None = None
) -> list[tuple[str, bool]]:
    """The rendered text in pieces that are tokenised by themselves, and whether each is trained on: what the assistant
    wrote after the last user message is.

    The template drops the reasoning of earlier assistant turns, as in inference, so they are context here;
    `split_turns` makes one example for each of them.

    Raises RowError: `no_reply` (nothing after the last user message), `template` (no prefix property).
    """
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    replies = [i for i, m in enumerate(messages) if i > last_user and m["role"] == "assistant"]
    if not replies:
        raise RowError("no_reply", "the conversation has no assistant message after the last user message")
    pieces: list[tuple[str, bool]] = []
    rendered = ""
    for index in replies:
        thinking = bool(messages[index].get("reasoning_content"))
        prompt = render(tokenizer, messages[:index], tools, thinking=thinking, for_generation=True)
        text = render(tokenizer, messages[: index + 1], tools, thinking=thinking)
        if not (prompt.startswith(rendered) and text.startswith(prompt)):
            raise RowError(
                "template", f"the chat template does not render message {index} as a continuation of its prompt"
            )
        end = text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)
        pieces += [(prompt[len(rendered) :], False), (text[len(prompt) : end], True)]
        rendered = text[:end]
    return pieces


def split_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation cut after each user message's replies: one training example for each user message."""
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return [list(messages[:end]) for start, end in pairwise([*starts, len(messages)]) if end > start + 1]
