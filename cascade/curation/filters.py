"""Filters of rows: form, readable text, length, a verified answer."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from cascade import chat, environments
from cascade.curation.encoding import Encoder
from cascade.curation.rows import Candidate, as_json
from cascade.environments import registry
from cascade.errors import RowError
from cascade.utils.progress import say

_BROKEN = re.compile("[\ud800-\udfff\ufffd\x00]")
_MAY_FOLLOW = {
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"tool", "assistant"},
}


def check_form(rows: Sequence[Candidate]) -> list[RowError | None]:
    """Errors: `bad_roles`, `empty`, `broken_text`, `no_reply`, and those of an environment's `check_row`."""
    return [_error(_check_form, row) for row in rows]


class LengthFilter:
    """Tokenises: `examples` and `tokens` of each row are set here.

    Errors: `too_long`, `markers`, `template`, and `template_loses_…` where the tokens do not hold all of the row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, path: Path):
        """`path`: the checkpoint's directory, where the tokenizer's files are."""
        self._encoder = Encoder(tokenizer, path)
        self._max_tokens = max_tokens
        self._markers = chat.turn_markers(tokenizer)
        self._said: set[str] = set()

    def check(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        errors = [_error(self._check_markers, row) for row in rows]
        clean = [row for row, error in zip(rows, errors, strict=True) if error is None]
        lengths = iter(self._lengths(clean))
        for at, (row, error) in enumerate(zip(rows, errors, strict=True)):
            if error is None:
                errors[at] = self._judge(row, next(lengths))
        self._say_first(rows, errors)
        return errors

    def _say_first(self, rows: Sequence[Candidate], errors: Sequence[RowError | None]) -> None:
        """Say the first of each reason that lies in the template, not in the row: others will follow."""
        for row, error in zip(rows, errors, strict=True):
            if error is not None and error.code.startswith("template") and error.code not in self._said:
                self._said.add(error.code)
                say(f"curate  {row.use}  {row.source}: rows are rejected ({error.code}): {error}")

    def _lengths(self, rows: Sequence[Candidate]) -> list[int | RowError]:
        """Tokens of each row, of SFT its longest example, or the error with which it cannot be rendered."""
        prompts = iter(self._encoder.prompts([(row.messages, row.tools) for row in rows if row.use != "sft"]))
        whole = iter(self._encoder.conversations([(row.messages, row.tools) for row in rows if row.use == "sft"]))
        lengths: list[int | RowError] = []
        for row in rows:
            examples = next(whole) if row.use == "sft" else next(prompts)
            if isinstance(examples, list):
                row.examples = examples
                lengths.append(max(len(example.token_ids) for example in examples))
            else:
                lengths.append(examples)
        return lengths

    def _judge(self, row: Candidate, length: int | RowError) -> RowError | None:
        if isinstance(length, RowError):
            return length
        row.tokens = length
        if length > self._max_tokens:
            row.examples = []
            return RowError("too_long", f"{length} tokens, more than {self._max_tokens}")
        return None

    def _check_markers(self, row: Candidate) -> None:
        for message, text in zip(row.messages, row.texts, strict=True):
            match = self._markers.search(text)
            if match:
                raise RowError("markers", f"a {message['role']} message contains the turn marker {match[0]}")


def check_answers(rows: Sequence[Candidate], threads: int = 1) -> list[RowError | None]:
    """Verify demonstrations where the environment can. Errors: `wrong_answer`, `unverified`."""
    errors: list[RowError | None] = [None] * len(rows)
    verifiable = [at for at, row in enumerate(rows) if row.answer is not None]
    if verifiable:
        # In parallel, because the sandbox runs programs in separate processes.
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(partial(_error, _check_answer), [rows[at] for at in verifiable])
            for at, error in zip(verifiable, found, strict=True):
                errors[at] = error
    return errors


def _check_form(row: Candidate) -> None:
    roles = [message["role"] for message in row.messages]
    if not roles or roles[0] not in ("system", "user"):
        raise RowError("bad_roles", "the conversation begins with neither a system nor a user message")
    for role, next_role in pairwise(roles):
        if next_role not in _MAY_FOLLOW.get(role, ()):
            raise RowError("bad_roles", f"a message of role {next_role!r} after one of role {role!r}")
    if row.use == "sft" and roles[-1] != "assistant":
        raise RowError("no_reply", "the conversation does not end with an assistant message")
    if row.use != "sft" and roles[-1] not in ("user", "tool"):
        raise RowError("bad_roles", "the prompt does not end with a user message or a tool's result")
    for message in row.messages:
        if message["role"] in ("user", "assistant") and not (message["content"].strip() or message.get("tool_calls")):
            raise RowError("empty", f"an empty {message['role']} message")
    # What a Gym row has beside its prompt is looked at, too.
    rest = as_json(row.gym) if row.gym is not None else row.tools_text
    for text in (*row.texts, rest):
        if ("\0" in text or not text.isascii()) and (broken := _BROKEN.search(text)):
            raise RowError("broken_text", f"character U+{ord(broken[0]):04X}: the text was decoded wrongly")
    if row.gym is not None:
        environment = registry.environment_of(row.gym)
        row.environment = environment.name
        try:
            environment.check_row(row.gym)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError) as error:
            raise RowError("bad_row", f"{environment.name}: {type(error).__name__}: {error}") from None


def _check_answer(row: Candidate) -> None:
    if row.answer is None or row.gym is None or row.environment is None:
        return
    verdict = environments.get(row.environment).verify(row.gym, row.answer)
    if verdict.reward is None:
        raise RowError("unverified", f"the environment could not decide ({verdict.failure}): {verdict.reason}")
    if verdict.reward < 1:
        raise RowError("wrong_answer", f"the demonstration has reward {verdict.reward:g}: {verdict.reason}")


def _error(check: Callable[[Candidate], None], row: Candidate) -> RowError | None:
    try:
        check(row)
    except RowError as error:
        return error
    return None
