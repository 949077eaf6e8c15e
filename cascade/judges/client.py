"""Questions to a model behind the OpenAI chat API: bounded concurrency, timeouts, retries, what it cost."""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import httpx

from cascade.chat import Message
from cascade.judges.base import JudgeError, Usage
from cascade.schema import JudgeEndpoint
from cascade.seeds import derive_seed

T = TypeVar("T")

ATTEMPTS = 4
"""Of one question: NeMo Gym's three retries after the first."""
BACKOFF_SECONDS = 1.0
"""Before the first retry; doubled before each further one."""
CONNECT_SECONDS = 10.0
TEMPERATURE, TOP_P = 0.6, 0.95
"""NeMo Gym's settings for its GenRM."""
GIVE_UP_AFTER = 32
"""Questions in a row that a server failed to answer, each after its retries, from which it is not asked again."""

_SERVER_FAILED = ("judge_unreachable", "judge_timeout", "judge_error")
_API_KEY = "JUDGE_API_KEY"


class ChatClient:
    """Any number of threads may ask at once; at most `concurrency` requests are under way.

    Errors (JudgeError): `judge_unreachable`, `judge_timeout`, `judge_error` (the server failed or is overloaded),
    `judge_malformed` (an answer that cannot be read); all these are retried. `judge_refused` (the server does not
    take the request: a wrong key or model, a context that is too long) is not.
    """

    def __init__(self, endpoint: JudgeEndpoint):
        self._endpoint = endpoint
        key = os.environ.get(_API_KEY)
        self._http = httpx.Client(
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(endpoint.timeout_seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency),
        )
        self._under_way = threading.BoundedSemaphore(endpoint.concurrency)
        self._pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="judge")
        self._lock = threading.Lock()
        self._usage = Usage()
        self._failed_in_a_row = 0

    def ask(self, messages: Sequence[Message], read: Callable[[str], T]) -> T:
        """What `read` makes of the model's answer; it raises ValueError on one that is malformed.

        Raises JudgeError when the last attempt has failed too.
        """
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            self._count(Usage(failures=1))
            raise JudgeError("judge_unreachable", f"{self._endpoint.url} failed {GIVE_UP_AFTER} questions in a row")
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                answer = self._read(self._complete(messages, attempt), read)
            except JudgeError as found:
                error = found
                if error.code == "judge_refused":
                    break
            else:
                self._failed_in_a_row = 0
                return answer
        # A refusal or a malformed answer shows that the server is alive.
        self._failed_in_a_row = self._failed_in_a_row + 1 if error.code in _SERVER_FAILED else 0
        self._count(Usage(failures=1))
        raise error

    def ask_all(self, questions: Sequence[Sequence[Message]], read: Callable[[str], T]) -> list[T | JudgeError]:
        """`ask` of every question, at once; a question that failed has its error in its place."""

        def attempt(messages: Sequence[Message]) -> T | JudgeError:
            try:
                return self.ask(messages, read)
            except JudgeError as error:
                return error

        return list(self._pool.map(attempt, questions))

    def take_usage(self) -> Usage:
        """What was used since the last call."""
        with self._lock:
            taken, self._usage = self._usage, Usage()
        return taken

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def _complete(self, messages: Sequence[Message], attempt: int) -> httpx.Response:
        endpoint = self._endpoint
        body = {
            "model": endpoint.model,
            "messages": list(messages),
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "max_tokens": endpoint.max_tokens,
            # The same question is answered the same way where the server honours it; a retry is another draw.
            "seed": derive_seed("judge", endpoint.model, json.dumps(messages, sort_keys=True), attempt) % 2**31,
        }
        with self._under_way:
            began = time.perf_counter()
            try:
                # As ASCII: what a model wrote may hold characters that have no UTF-8.
                reply = self._http.post(f"{endpoint.url.rstrip('/')}/chat/completions", content=json.dumps(body))
            except httpx.TimeoutException:
                raise JudgeError(
                    "judge_timeout", f"{endpoint.url}: no answer within {endpoint.timeout_seconds:g} s"
                ) from None
            except httpx.TransportError as error:
                raise JudgeError("judge_unreachable", f"{endpoint.url}: {error or type(error).__name__}") from None
            finally:
                seconds = time.perf_counter() - began
                self._count(Usage(requests=1, retries=int(attempt > 0), seconds=seconds))
        if reply.is_success:
            return reply
        failed = reply.is_server_error or reply.status_code in (408, 429)
        code = "judge_error" if failed else "judge_refused"
        raise JudgeError(code, f"{endpoint.url}: HTTP {reply.status_code} {' '.join(reply.text[:200].split())}")

    def _read(self, reply: httpx.Response, read: Callable[[str], T]) -> T:
        model = self._endpoint.model
        try:
            content = reply.json()
            text = content["choices"][0]["message"]["content"]
            used = content.get("usage") or {}
            self._count(Usage(prompt_tokens=_tokens(used, "prompt"), completion_tokens=_tokens(used, "completion")))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise JudgeError("judge_malformed", f"{model}: the reply is no chat completion") from None
        if not isinstance(text, str):
            raise JudgeError("judge_malformed", f"{model}: the reply has no text; is max_tokens too small for it?")
        try:
            return read(text.rpartition("</think>")[2])
        except ValueError as error:
            raise JudgeError("judge_malformed", f"{model}: {error}; it wrote …{text[-100:]!r}") from None

    def _count(self, usage: Usage) -> None:
        with self._lock:
            self._usage += usage


def _tokens(used: dict, kind: str) -> int:
    return int(used.get(f"{kind}_tokens") or 0)
