"""Filters of rows: form, readable text, length, a verified answer."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from cascade import chat, environments
from cascade.curation.rows import Candidate, message_text
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

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int):
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._markers = chat.turn_markers(tokenizer)
        self._said: set[str] = set()

    def check(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        errors = [_error(self._check, row) for row in rows]
        self._say_first(rows, errors)
        return errors

    def _check(self, row: Candidate) -> None:
        for message in row.messages:
            match = self._markers.search(message_text(message))
            if match:
                raise RowError("markers", f"a {message['role']} message contains the turn marker {match[0]}")
        if row.use == "sft":
            turns = chat.split_turns(row.messages)
            row.examples = [chat.encode_conversation(self._tokenizer, turn, row.tools) for turn in turns]
            row.tokens = max(len(example.token_ids) for example in row.examples)
        else:
            row.tokens = len(chat.encode_checked_prompt(self._tokenizer, row.messages, row.tools))
        if row.tokens > self._max_tokens:
            raise RowError("too_long", f"{row.tokens} tokens, more than {self._max_tokens}")

    def _say_first(self, rows: Sequence[Candidate], errors: Sequence[RowError | None]) -> None:
        """Say the first of each reason that lies in the template, not in the row: others will follow."""
        for row, error in zip(rows, errors, strict=True):
            if error is not None and error.code.startswith("template") and error.code not in self._said:
                self._said.add(error.code)
                say(f"curate  {row.use}  {row.source}: rows are rejected ({error.code}): {error}")


def check_answers(rows: Sequence[Candidate]) -> list[RowError | None]:
    """Verify demonstrations where the environment can. Errors: `wrong_answer`, `unverified`."""
    # In parallel, because the sandbox runs programs in separate processes.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(partial(_error, _check_answer), rows))


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
    broken = _BROKEN.search("\n".join(map(message_text, row.messages)) + row.as_json())
    if broken:
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
