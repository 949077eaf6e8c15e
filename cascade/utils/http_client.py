"""HTTP requests with bounded concurrency, time, attempts and size, for judges and for verifiers by URL.

A request fails in one of five ways (`Unanswered.kind`):

- `unreachable`: no connection, or a broken one.
- `timeout`: no complete response in time. Not retried, which would double the time and the server's load.
- `error`: the server failed or is overloaded (HTTP 5xx, 408, 429).
- `refused`: any other status than 200; a retry would be refused too.
- `malformed`: a response that cannot be read, or is too long.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from time import perf_counter, sleep
from typing import Literal, TypeVar

import httpx

from cascade.errors import CascadeError

T = TypeVar("T")
Kind = Literal["unreachable", "timeout", "error", "refused", "malformed"]

ATTEMPTS = 4
"""Attempts of one request: the first and three retries, as in NeMo Gym."""
BACKOFF_SECONDS = 1.0
"""Pause before the first retry; doubled before each further one."""
CONNECT_SECONDS = 10.0
GIVE_UP_AFTER = 32
"""Consecutive failed requests, each after its retries, after which a server gets no more."""
MAX_ANSWER = 64 * 2**20
"""Bytes. A resources server sends its request back, so a response is about as long as its request."""


class Unanswered(CascadeError):
    """A request that failed. `again`: a retry may succeed."""

    def __init__(self, kind: Kind, message: str, again: bool = False):
        super().__init__(message)
        self.kind: Kind = kind
        self.again = again


class Client:
    """Thread-safe client of any number of servers, with persistent connections."""

    def __init__(
        self,
        concurrency: int,
        answer_seconds: float,
        *,
        proxies: bool,
        headers: Mapping[str, str] | None = None,
        sent: Callable[[int, float], None] = lambda attempt, seconds: None,
    ):
        """`concurrency`: concurrent requests. `answer_seconds`: timeout from sending to the end of the response.
        `proxies`: use those of the environment. `sent` is called after every request with its attempt, from 0, and
        its duration in seconds."""
        self._answer_seconds = answer_seconds
        self._sent = sent
        self._in_progress = threading.BoundedSemaphore(concurrency)
        self._http = httpx.Client(
            headers={"Content-Type": "application/json", **(headers or {})},
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=proxies,
        )
        self._lock = threading.Lock()
        self._failed_in_a_row: Counter[str] = Counter()

    def ask(self, url: str, body: Callable[[int], bytes], read: Callable[[bytes], T]) -> T:
        """`read` of the response's content; `read` raises Unanswered for a malformed one.

        `body` gives the request of an attempt, counted from 0. Raises Unanswered when the last attempt has failed too.
        """
        if self._failed_in_a_row[url] >= GIVE_UP_AFTER:
            raise Unanswered("unreachable", f"{url}: not asked, as it failed {GIVE_UP_AFTER} questions in a row")
        for attempt in range(ATTEMPTS):
            if attempt:
                sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                return read(self._post(url, body(attempt), attempt))
            except Unanswered as failure:
                error = failure
                if not error.again:
                    break
        # A response, even a malformed one, shows that the server is alive.
        with self._lock:
            failed = error.kind in ("unreachable", "timeout", "error")
            self._failed_in_a_row[url] = self._failed_in_a_row[url] + 1 if failed else 0
        raise error

    def close(self) -> None:
        self._http.close()

    def _post(self, url: str, body: bytes, attempt: int) -> bytes:
        with self._in_progress:
            began = perf_counter()
            try:
                status, content = self._exchange(url, body, began)
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                raise self._too_slow(url) from None
            except httpx.TransportError as error:
                message = f"{url}: {_words(error)}; is the server running there?"
                raise Unanswered("unreachable", message, again=True) from None
            except httpx.DecodingError as error:
                raise Unanswered("malformed", f"{url}: the answer cannot be decoded: {error}") from None
            finally:
                self._sent(attempt, perf_counter() - began)
        if status == 200:
            with self._lock:
                self._failed_in_a_row[url] = 0
            return content
        message = f"{url}: HTTP {status} {excerpt(content)}"
        if status >= 500 or status in (408, 429):
            raise Unanswered("error", message, again=True)
        raise Unanswered("refused", message)

    def _exchange(self, url: str, body: bytes, began: float) -> tuple[int, bytes]:
        # httpx limits the time of each read only; a slow stream needs a limit of the whole response.
        content = bytearray()
        with self._http.stream("POST", url, content=body) as answer:
            for part in answer.iter_bytes():
                content += part
                if perf_counter() - began > self._answer_seconds:
                    raise self._too_slow(url)
                if len(content) > MAX_ANSWER:
                    raise Unanswered("malformed", f"{url}: the answer is longer than {MAX_ANSWER >> 20} MiB")
            return answer.status_code, bytes(content)

    def _too_slow(self, url: str) -> Unanswered:
        return Unanswered("timeout", f"{url}: no answer within {self._answer_seconds:g} s")


def excerpt(content: bytes) -> str:
    """The beginning of a response, on one line."""
    return " ".join(content.decode(errors="replace").split())[:200] or "(empty)"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
