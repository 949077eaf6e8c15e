"""Messages → tokens, many rows at a time: each conversation is rendered once, and all texts are tokenised together.

`Renderer.conversation` is the one place where a curated conversation becomes text.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from cascade import chat
from cascade.chat import Message
from cascade.chat.dialects import TOOL_CALL
from cascade.chat.round_trip import check_prompt, check_replies
from cascade.curation.skeletons import Skeleton, Skeletons
from cascade.errors import CascadeError, RowError
from cascade.utils.progress import say

Tokens = NDArray[np.int32]
Pieces = list[tuple[str, bool]]
"""Text in pieces that are tokenised by themselves, and whether each is trained on."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation in tokens. `runs`: lengths of what is not trained on and what is, in turns."""

    token_ids: Tokens
    runs: Tokens

    @property
    def trained(self) -> NDArray[np.bool_]:
        return mask(self.runs)


def mask(runs: Tokens) -> NDArray[np.bool_]:
    """For each token whether it is trained on, from the runs of any number of conversations."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": {}}}},
}
_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "1"}}}
_SAMPLES = [
    "",
    " a  b\n\n c\td",
    "Ünïcode 优化 🙂 e\u0301 x²≤3",
    "<think>\nno\n</think>",
    "it's 12,345.67 + (3-4)*5 // x_1",
]


class Renderer:
    """Renders conversations as `chat.replies` does, once instead of twice a reply, and checks that nothing is lost.

    The replies of a template that writes each message by itself can be found in one rendering. Whether it does is tried
    on conversations of every shape; a template that does not, and a row in which the turns are not found, is rendered
    in the general way.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._format = chat.format_of(tokenizer)
        self._heads = {thinking: self._head(thinking) for thinking in (True, False)}
        both = zip(*self._heads.values(), strict=False)
        self._turn = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both))
        self.at_once = bool(self._turn) and all(self._agrees(*probe) for probe in _probes())
        self._skeletons = Skeletons(tokenizer, self._rendered, self._cut) if self.at_once else None
        self._tags: dict[Skeleton, list[int] | None] = {}
        dialect = self._format.dialect or TOOL_CALL
        self._calls = dialect.opening if dialect.tagged else None

    def conversation(self, messages: Sequence[Message], tools: list[dict] | None) -> Pieces:
        """The texts of `chat.replies`. Raises RowError: its errors, and `template_loses_…`."""
        if not tools and (filled := self._filled(messages)) is not None:
            return filled
        found = self._rendered_once(messages, tools) if self.at_once else None
        found = found or chat.replies(self._tokenizer, messages, tools)
        check_replies(self._format, messages, tools, found)
        return [piece for context, reply in found for piece in ((context, False), (reply, True))]

    def prompt(self, messages: Sequence[Message], tools: list[dict] | None) -> str:
        """Everything up to where the assistant begins to write. Raises RowError `template`, `template_loses_…`."""
        text = chat.render(self._tokenizer, messages, tools, for_generation=True)
        check_prompt(messages, tools, text)
        return text

    def _filled(self, messages: Sequence[Message]) -> Pieces | None:
        """The texts without rendering; None where the turns of the assistant are not found in them."""
        skeleton = self._skeletons.of(messages) if self._skeletons is not None else None
        if skeleton is None:
            return None
        pieces = skeleton.fill(messages)
        turns = sum(message["role"] == "assistant" for message in messages)
        # A text could write a turn of its own.
        if "".join(pieces).count(self._turn) != turns:
            return None
        end = self._format.end
        replies = pieces[1::2]
        if any(reply.find(end) != len(reply) - len(end) for reply in replies):
            return None
        if skeleton not in self._tags:
            self._tags[skeleton] = self._tags_around(skeleton, messages)
        if list(map(self._tags_in, replies)) != self._tags[skeleton] or any(
            text and text.isspace() for message in messages for text in message.values()
        ):
            check_replies(self._format, messages, None, list(zip(pieces[::2], replies, strict=True)))
        return [(piece, at % 2 == 1) for at, piece in enumerate(pieces)]

    def _tags_around(self, skeleton: Skeleton, messages: Sequence[Message]) -> list[int] | None:
        """How many tags of thoughts each reply has around its texts. Where the texts bring no others, and no calls, a
        reply is read back whatever they say: it is, with a word for each. None where a reply is not."""
        words = [
            {key: value if key == "role" or not value else f"{key} {at}" for key, value in message.items()}
            for at, message in enumerate(messages)
        ]
        pieces = skeleton.fill(words)
        try:
            check_replies(self._format, words, None, list(zip(pieces[::2], pieces[1::2], strict=True)))
        except RowError:
            return None
        tags = list(map(self._tags_in, pieces[1::2]))
        known = self._format.response_template is None and skeleton.shows(messages) and min(tags) >= 0
        return tags if known else None

    def _tags_in(self, reply: str) -> int:
        """-1 where there are calls."""
        if self._calls is not None and self._calls.search(reply):
            return -1
        return reply.count("<think") + reply.count("</think")

    def _rendered(self, messages: Sequence[Message], tools: list[dict] | None = None) -> str:
        thinking = bool(messages[-1].get("reasoning_content"))
        return chat.render(self._tokenizer, messages, tools, thinking=thinking)

    def _cut(self, text: str, messages: Sequence[Message]) -> list[str] | None:
        found = self._turns(text, messages)
        return [piece for turn in found for piece in turn] if found is not None else None

    def _rendered_once(self, messages: Sequence[Message], tools: list[dict] | None) -> list[tuple[str, str]] | None:
        """None where the turns of the assistant are not found in the text."""
        if messages[-1]["role"] != "assistant":
            return None
        return self._turns(self._rendered(messages, tools), messages)

    def _turns(self, text: str, messages: Sequence[Message]) -> list[tuple[str, str]] | None:
        last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
        replies = [m for m in messages[last_user + 1 :] if m["role"] == "assistant"]
        if not replies or messages[-1]["role"] != "assistant":
            return None
        if text.count(self._turn) != sum(m["role"] == "assistant" for m in messages):
            return None
        starts: list[int] = []
        for _ in replies:
            starts.insert(0, text.rindex(self._turn, 0, starts[0] if starts else None))
        found: list[tuple[str, str]] = []
        end = 0
        for start, message in zip(starts, replies, strict=True):
            head = self._heads[bool(message.get("reasoning_content"))]
            begin = start + len(head)
            mark = self._format.call_end if message.get("tool_calls") else self._format.end
            finish = text.find(mark, begin)
            if not text.startswith(head, start) or finish < 0:
                return None
            finish += len(mark)
            found.append((text[end:begin], text[begin:finish]))
            end = finish
        return found

    def _head(self, thinking: bool) -> str:
        """What the template writes before the text of an assistant's turn."""
        messages = [{"role": "user", "content": "x"}]
        try:
            prompt = chat.render(self._tokenizer, messages, thinking=thinking, for_generation=True)
            return prompt.removeprefix(chat.render(self._tokenizer, messages, thinking=thinking))
        except RowError:
            return ""

    def _agrees(self, messages: list[Message], tools: list[dict] | None) -> bool:
        try:
            expected = chat.replies(self._tokenizer, messages, tools)
            found = self._rendered_once(messages, tools)
        except (RowError, ValueError):
            return True  # Such rows are rendered in the general way, which says what is wrong.
        return found is None or found == expected


class Tokenizer:
    """Token ids of many texts at once, the same as the checkpoint's tokenizer gives.

    fastokens, where it is installed, reads the same tokenizer.json and is several times as fast. The first texts of
    each object are tokenised by both.
    """

    CHECKED = 64

    def __init__(self, tokenizer: PreTrainedTokenizerBase, path: Path):
        self._tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._fast: Any = None
        self._unchecked = self.CHECKED
        file = path / "tokenizer.json"
        if importlib.util.find_spec("fastokens") and file.is_file():
            import fastokens

            try:
                self._fast = fastokens.Tokenizer.from_file(str(file))
                self._check(_SAMPLES, *self._fast_ids(_SAMPLES))
            except (CascadeError, ValueError, RuntimeError) as error:
                say(f"curate  fastokens is not used: {' '.join(str(error).split())[:200]}")
                self._fast = None

    def encode(self, texts: Sequence[str]) -> tuple[Tokens, NDArray[np.int64]]:
        """Token ids of all texts, without special tokens added; those of text i from bounds[i] to bounds[i + 1]."""
        if self._fast is None or not texts:
            return self._ids(texts)
        ids, bounds = self._fast_ids(texts)
        if self._unchecked > 0:
            self._check(texts[: self._unchecked], ids, bounds)
            self._unchecked -= len(texts)
        return ids, bounds

    def _ids(self, texts: Sequence[str]) -> tuple[Tokens, NDArray[np.int64]]:
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            found = [encoding.ids for encoding in encodings]
        else:
            found = [chat.encode(self._tokenizer, text) for text in texts]
        bounds = np.cumsum([0, *map(len, found)])
        return np.concatenate([np.empty(0, np.int32), *(np.array(ids, np.int32) for ids in found)]), bounds

    def _fast_ids(self, texts: Sequence[str]) -> tuple[Tokens, NDArray[np.int64]]:
        ids, offsets = self._fast.encode_batch_flat(list(texts), add_special_tokens=False)
        return np.frombuffer(ids, np.uint32).astype(np.int32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def _check(self, texts: Sequence[str], ids: Tokens, bounds: NDArray[np.int64]) -> None:
        expected, own = self._ids(texts)
        for at, text in enumerate(texts):
            if not np.array_equal(expected[own[at] : own[at + 1]], ids[bounds[at] : bounds[at + 1]]):
                raise CascadeError(
                    f"fastokens tokenises {text[:40]!r} otherwise than the tokenizer does; `pip uninstall fastokens`, "
                    "and run it again"
                )


class Encoder:
    """Rows of messages → tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, path: Path):
        self._renderer = Renderer(tokenizer)
        self._tokens = Tokenizer(tokenizer, path)

    def conversations(self, rows: Sequence[tuple[list[Message], list[dict] | None]]) -> list[list[Example] | RowError]:
        """For each conversation one example a user message, or the error with which it could not be rendered."""
        rendered: list[list[Pieces] | RowError] = []
        for messages, tools in rows:
            try:
                rendered.append([self._renderer.conversation(turn, tools) for turn in chat.split_turns(messages)])
            except RowError as error:
                rendered.append(error)
        texts = [text for row in rendered if isinstance(row, list) for pieces in row for text, _ in pieces]
        ids, bounds = self._tokens.encode(texts)
        examples = _examples(ids, bounds, rendered)
        return [row if isinstance(row, RowError) else [next(examples) for _ in row] for row in rendered]

    def prompts(self, rows: Sequence[tuple[list[Message], list[dict] | None]]) -> list[int | RowError]:
        """The length of each prompt in tokens, or the error."""
        rendered: list[str | RowError] = []
        for messages, tools in rows:
            try:
                rendered.append(self._renderer.prompt(messages, tools))
            except RowError as error:
                rendered.append(error)
        _, bounds = self._tokens.encode([text for text in rendered if isinstance(text, str)])
        lengths = iter(np.diff(bounds).tolist())
        return [row if isinstance(row, RowError) else next(lengths) for row in rendered]


def _examples(ids: Tokens, bounds: NDArray[np.int64], rendered: Sequence[list[Pieces] | RowError]) -> Iterator[Example]:
    """The pieces of a conversation are not trained on and trained on in turns, and its tokens one after the other."""
    runs = np.diff(bounds).astype(np.int32)
    starts = bounds.tolist()
    at = 0
    for row in rendered:
        for pieces in row if isinstance(row, list) else ():
            end = at + len(pieces)
            yield Example(ids[starts[at] : starts[end]], runs[at:end])
            at = end


def _probes() -> list[tuple[list[Message], list[dict] | None]]:
    """Conversations of every shape that passes the form filter: system message, reasoning, calls, several turns."""
    user: Message = {"role": "user", "content": "q"}
    plain: Message = {"role": "assistant", "content": "a"}
    thought: Message = {"role": "assistant", "content": "a b\n", "reasoning_content": "t\n\nu"}
    calls: Message = {"role": "assistant", "content": "", "reasoning_content": "t", "tool_calls": [_CALL]}
    silent: Message = {"role": "assistant", "content": "c", "tool_calls": [_CALL, _CALL]}
    result: Message = {"role": "tool", "content": "r"}
    bodies = [
        [user, plain],
        [user, thought],
        [user, calls, result, plain],
        [user, calls, result, result, silent, result, thought],
        [user, silent, result, calls, result, calls],
        [user, thought, user, plain],
        [user, calls, result, thought, user, thought],
        [user, plain, user, silent, result, plain, user, calls, result, plain],
    ]
    heads: list[list[Message]] = [[], [{"role": "system", "content": "s"}], [{"role": "system", "content": ""}]]
    return [([*head, *body], tools) for head in heads for body in bodies for tools in (None, [_TOOL])]
