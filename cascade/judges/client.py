"""Requests to a judge model behind the OpenAI chat API, and their usage."""

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cascade.chat import Message
from cascade.judges.base import JudgeError, Usage
from cascade.judges.settings import JudgeEndpoint
from cascade.utils.http_client import Client, Unanswered
from cascade.utils.seeds import derive_seed

T = TypeVar("T")

TEMPERATURE, TOP_P = 0.6, 0.95
"""NeMo Gym's settings for its GenRM."""

_API_KEY = "JUDGE_API_KEY"


class ChatClient:
    """Thread-safe; at most `concurrency` requests are in progress.

    Errors (JudgeError): `judge_` and the kind of `cascade.utils.http_client.Unanswered`. `judge_unreachable`,
    `judge_error` and `judge_malformed` (an answer that cannot be read) are retried; `judge_timeout` and `judge_refused`
    (a wrong key or model, a context that is too long) are not.
    """

    def __init__(self, endpoint: JudgeEndpoint):
        self._endpoint = endpoint
        key = os.environ.get(_API_KEY)
        # A judge may run outside the cluster, behind its proxy.
        self._client = Client(
            endpoint.concurrency,
            endpoint.timeout_seconds,
            proxies=True,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            sent=lambda attempt, seconds: self._count(Usage(requests=1, retries=int(attempt > 0), seconds=seconds)),
        )
        self._pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="judge")
        self._lock = threading.Lock()
        self._usage = Usage()

    def ask(self, messages: Sequence[Message], read: Callable[[str], T], draw: int = 0) -> T:
        """`read` of the model's answer; `read` raises ValueError for a malformed one. `draw`: another one is another
        answer to the same question.

        Raises JudgeError when the last attempt has failed too.
        """
        url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
        try:
            return self._client.ask(
                url, lambda attempt: self._body(messages, attempt, draw), lambda content: self._read(content, read)
            )
        except Unanswered as error:
            self._count(Usage(failures=1))
            raise JudgeError(f"judge_{error.kind}", str(error)) from None

    def ask_all(self, questions: Sequence[Sequence[Message]], read: Callable[[str], T]) -> list[T | JudgeError]:
        """`ask` for every question, concurrently; a failed one has its error in its place."""

        def attempt(messages: Sequence[Message]) -> T | JudgeError:
            try:
                return self.ask(messages, read)
            except JudgeError as error:
                return error

        return list(self._pool.map(attempt, questions))

    def ask_often(self, messages: Sequence[Message], read: Callable[[str], T], count: int) -> list[T | JudgeError]:
        """`ask` of the same question `count` times, concurrently."""

        def attempt(draw: int) -> T | JudgeError:
            try:
                return self.ask(messages, read, draw)
            except JudgeError as error:
                return error

        return list(self._pool.map(attempt, range(count)))

    def take_usage(self) -> Usage:
        """Usage since the last call."""
        with self._lock:
            usage, self._usage = self._usage, Usage()
        return usage

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _body(self, messages: Sequence[Message], attempt: int, draw: int) -> bytes:
        endpoint = self._endpoint
        keys = ("judge", endpoint.model, json.dumps(messages, sort_keys=True), attempt)
        body = {
            "model": endpoint.model,
            "messages": list(messages),
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "max_tokens": endpoint.max_tokens,
            # The same question is answered the same way where the server honours it; a retry is another draw.
            "seed": derive_seed(*keys, *([draw] if draw else [])) % 2**31,
        }
        # As ASCII: what a model wrote may hold characters that have no UTF-8.
        return json.dumps(body).encode()

    def _read(self, content: bytes, read: Callable[[str], T]) -> T:
        model = self._endpoint.model
        try:
            reply = json.loads(content)
            choice = reply["choices"][0]
            text, cut_off = choice["message"]["content"], choice.get("finish_reason") == "length"
            usage = reply.get("usage") or {}
            self._count(Usage(prompt_tokens=_tokens(usage, "prompt"), completion_tokens=_tokens(usage, "completion")))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _malformed(f"{model}: the reply is no chat completion") from None
        if not isinstance(text, str):
            raise _malformed(f"{model}: the reply has no text; is max_tokens too small for it?")
        if cut_off:
            # Its end is missing, where the verdict stands; what looks like one may be a quotation.
            raise _malformed(f"{model}: the reply was cut off at max_tokens {self._endpoint.max_tokens}")
        if text.lstrip().startswith("<think>") and "</think>" not in text:
            raise _malformed(f"{model}: the reply is a thought that does not end")
        try:
            return read(text.rpartition("</think>")[2])
        except ValueError as error:
            raise _malformed(f"{model}: {error}; it wrote …{text[-100:]!r}") from None

    def _count(self, usage: Usage) -> None:
        with self._lock:
            self._usage += usage


def _malformed(message: str) -> Unanswered:
    # A sampled answer: the next one may be in form.
    return Unanswered("malformed", message, again=True)


def _tokens(usage: dict, kind: str) -> int:
    return int(usage.get(f"{kind}_tokens") or 0)
