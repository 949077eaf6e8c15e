"""Conversations as text without running the chat template for each: by what it writes around the messages' texts.

For conversations of one shape (the same roles, the same messages with reasoning or without text) a template writes the
same text around the messages, unless it looks at what they say. So one of the shape is rendered with texts that can be
written and joined, but refuse everything else. Where nothing looked at them, the others of the shape differ in nothing
but their texts; where something did (`trim`, `in`, `split`, …), the shape has no skeleton.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, ClassVar

from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from cascade.chat import Message
from cascade.chat.format import format_of, template_settings

_FIELDS = ("reasoning_content", "content")
_KEYS = frozenset(["role", *_FIELDS])
_MARK = "\ue0f0"
"""Begins and ends the names that stand for texts: of private use, and in no template."""
_NAME = re.compile(f"{_MARK}([0-9]+){_MARK}")
_HARMLESS = frozenset(["defined", "undefined", "none", "string", "mapping", "boolean", "number", "true", "false"])
"""Tests that tell of a text only what the shape tells."""
_STRUCTURAL = frozenset(["list", "first", "last"])
"""Filters that give parts of lists as they are."""
_DEPTH = 16
_UNSEEN = (nodes.Concat, nodes.AssignBlock, nodes.FilterBlock, nodes.CallBlock, nodes.Mod)
"""What Jinja makes plain texts of, which no longer refuse."""

Shape = tuple[tuple[str, ...], ...]
Hole = tuple[int, str]
"""Number of a message and one of _FIELDS."""


class Inspected(Exception):
    """The template looks at what a message says."""


class Skeleton:
    """Pieces of text with holes for the messages' texts."""

    def __init__(self, pieces: Sequence[str], holes: Sequence[Hole]):
        self._pieces: list[list[str | Hole]] = []
        for piece in pieces:
            parts = _NAME.split(piece)
            self._pieces.append([holes[int(part)] if at % 2 else part for at, part in enumerate(parts)])

    def shows(self, messages: Sequence[Message]) -> bool:
        """Whether what precedes a reply is in the piece before it, in its order; and whether a reply has no texts but
        its own, and follows at least a tag's length of the template's text."""
        replies = [at for at, m in enumerate(messages) if m["role"] == "assistant"][-len(self._pieces) // 2 :]
        begin = 0
        for reply, context, written in zip(replies, self._pieces[::2], self._pieces[1::2], strict=True):
            expected = [(at, "content") for at in range(begin, reply) if messages[at].get("content")]
            holes = iter([part for part in context if not isinstance(part, str)])
            own = all(part[0] == reply for part in written if not isinstance(part, str))
            last = context[-1]
            if not own or not isinstance(last, str) or len(last.rstrip()) < len("<think>"):
                return False
            if not all(hole in holes for hole in expected):
                return False
            begin = reply + 1
        return True

    def fill(self, messages: Sequence[Message]) -> list[str]:
        return [
            "".join([part if isinstance(part, str) else messages[part[0]][part[1]] for part in piece])
            for piece in self._pieces
        ]


class Skeletons:
    """The skeletons of a template, by shape. `render` gives the text of a conversation, and `cut` cuts it in pieces,
    given its messages."""

    MOST = 4096
    SEEN_BEFORE = 3
    """Conversations of a shape that are rendered in the general way first: many shapes occur once."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        render: Callable[[Sequence[Message]], str],
        cut: Callable[[str, Sequence[Message]], list[str] | None],
    ):
        self._tokenizer = tokenizer
        self._render = render
        self._cut = cut
        self._seen: Counter[Shape] = Counter()
        self._known: dict[Shape, Skeleton | None] = {}
        self._environment: _Environment | None = None
        if isinstance(tokenizer.chat_template, str) and format_of(tokenizer).takes_messages_as_they_are:
            with suppress(TemplateError, Inspected):
                self._environment = _Environment(tokenizer.chat_template)

    def of(self, messages: Sequence[Message]) -> Skeleton | None:
        """None where there is none, or not yet."""
        if self._environment is None or (shape := shape_of(messages)) is None:
            return None
        if shape not in self._known:
            if len(self._seen) > self.MOST:
                self._seen.clear()
            self._seen[shape] += 1
            if self._seen[shape] <= self.SEEN_BEFORE or len(self._known) >= self.MOST:
                return None
            self._known[shape] = self._made(self._environment, messages)
        return self._known[shape]

    def _made(self, environment: "_Environment", messages: Sequence[Message]) -> Skeleton | None:
        holes: list[Hole] = []
        named: list[Message] = []
        for number, message in enumerate(messages):
            copy = dict(message)
            for field in _FIELDS:
                if copy.get(field):
                    copy[field] = _Text(f"{_MARK}{len(holes)}{_MARK}")
                    holes.append((number, field))
            named.append(copy)
        thinking = bool(messages[-1].get("reasoning_content"))
        try:
            text = environment.render(named, {**self._tokenizer.special_tokens_map, **template_settings(thinking)})
            pieces = self._cut(text, messages)
        except (Inspected, TemplateError, TypeError, AttributeError, KeyError, ValueError):
            return None
        skeleton = Skeleton(pieces, holes) if pieces is not None else None
        # Once more by the tokenizer itself: the environment here is another one.
        if skeleton is None or skeleton.fill(messages) != self._cut(self._render(messages), messages):
            return None
        return skeleton


def shape_of(messages: Sequence[Message]) -> Shape | None:
    """Of each message its role and which texts it has; None where there are fields that a skeleton has no holes for."""
    shape: list[tuple[str, ...]] = []
    for message in messages:
        if "tool_calls" in message or not message.keys() <= _KEYS:
            return None
        reasoning = "t" if message.get("reasoning_content") else ""
        shape.append((message["role"], *message, reasoning, "c" if message.get("content") else ""))
    return tuple(shape)


class _Text(str):
    """Text that can be written, joined and asked whether it is empty, and refuses everything else."""

    __slots__ = ()
    _ALLOWED: ClassVar[frozenset[str]] = frozenset(
        ["__new__", "__init__", "__class__", "__getattribute__", "__doc__", "__init_subclass__", "__subclasshook__"]
    )

    def __str__(self) -> str:
        return self

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: str) -> "_Text":
        return _Text("".join((self, other)))

    def __radd__(self, other: str) -> "_Text":
        return _Text("".join((other, self)))


def _refuse(*arguments: Any, **named: Any) -> Any:
    raise Inspected


for _name in {*dir(str), "__rmod__"} - {*_Text.__dict__, *_Text._ALLOWED}:
    setattr(_Text, _name, _refuse)


class _Environment(ImmutableSandboxedEnvironment):
    """That of transformers, which hands such texts to nothing. Raises Inspected where the template has statements that
    make other texts of them."""

    def __init__(self, source: str):
        theirs = _compile_jinja_template(source).environment
        extensions = [type(extension) for extension in theirs.extensions.values()]
        super().__init__(trim_blocks=theirs.trim_blocks, lstrip_blocks=theirs.lstrip_blocks, extensions=extensions)
        self.globals.update(theirs.globals)
        self.filters = {name: _guarded(found, name in _STRUCTURAL) for name, found in theirs.filters.items()}
        self.tests = {name: _guarded(found, name in _HARMLESS) for name, found in theirs.tests.items()}
        if next(self.parse(source).find_all(_UNSEEN), None) is not None:
            raise Inspected
        self._template = self.from_string(source)

    def render(self, messages: Sequence[Message], settings: dict[str, Any]) -> str:
        return self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=False, **settings
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        _refuse_text(obj)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        _refuse_text(obj)
        _refuse_text(argument)
        return super().getitem(obj, argument)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_texts([obj, args, kwargs])
        result = super().call(context, obj, *args, **kwargs)
        if not isinstance(result, _Text):
            _refuse_text(result)
        return result


def _guarded(function: Callable[..., Any], harmless: bool) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if harmless is False:
            _refuse_texts([args, kwargs])
        return function(*args, **kwargs)

    return guarded


def _refuse_text(value: Any) -> None:
    """Raises Inspected where the value is one of the texts, or has one within."""
    if isinstance(value, str) and _MARK in "".join((value, "\n")):
        raise Inspected


def _refuse_texts(value: Any, depth: int = 0) -> None:
    """The same, also of the values in lists and dictionaries."""
    _refuse_text(value)
    if depth > _DEPTH:
        raise Inspected
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_texts(inner, depth + 1)
