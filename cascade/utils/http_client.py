"""Asking a server over HTTP, bounded in concurrency, time, attempts and size: what judges and verifiers by URL share.

A question goes unanswered in one of five ways (`Unanswered.kind`):

- `unreachable`: no connection, or it broke off.
- `timeout`: no whole answer in time. Not repeated: that would double the time and the server's load.
- `error`: the server failed or is overloaded (HTTP 5xx, 408, 429).
- `refused`: any other status than 200; the same request would be refused again.
- `malformed`: an answer that cannot be read, or has no end.
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
"""Of one question: NeMo Gym's three retries after the first."""
BACKOFF_SECONDS = 1.0
"""Before the first retry; doubled before each further one."""
CONNECT_SECONDS = 10.0
GIVE_UP_AFTER = 32
"""Questions in a row that a server failed to answer, each after its retries, from which it is not asked again."""
MAX_ANSWER = 64 * 2**20
"""Bytes. A resources server sends back what it was sent, so an answer is about as long as its request."""


class Unanswered(CascadeError):
    """A question that a server did not answer. `again`: asking once more may help."""

    def __init__(self, kind: Kind, message: str, again: bool = False):
        super().__init__(message)
        self.kind: Kind = kind
        self.again = again


class Client:
    """Any number of threads may ask, any number of servers; it keeps connections open between questions."""

    def __init__(
        self,
        concurrency: int,
        answer_seconds: float,
        *,
        proxies: bool,
        headers: Mapping[str, str] | None = None,
        sent: Callable[[int, float], None] = lambda attempt, seconds: None,
    ):
        """`concurrency`: requests under way at once. `answer_seconds`: from sending to the end of the answer.
        `proxies`: those of the environment are used. `sent` is told of every request: which attempt it was, from 0,
        and how long it took."""
        self._answer_seconds = answer_seconds
        self._sent = sent
        self._under_way = threading.BoundedSemaphore(concurrency)
        self._http = httpx.Client(
            headers={"Content-Type": "application/json", **(headers or {})},
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=proxies,
        )
        self._lock = threading.Lock()
        self._failed_in_a_row: Counter[str] = Counter()

    def ask(self, url: str, body: Callable[[int], bytes], read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer; `read` raises Unanswered where it makes nothing of it.

        `body` is the request of an attempt, counted from 0. Raises Unanswered when the last attempt has failed too.
        """
        if self._failed_in_a_row[url] >= GIVE_UP_AFTER:
            raise Unanswered("unreachable", f"{url}: not asked, as it failed {GIVE_UP_AFTER} questions in a row")
        for attempt in range(ATTEMPTS):
            if attempt:
                sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                return read(self._post(url, body(attempt), attempt))
            except Unanswered as found:
                error = found
                if not error.again:
                    break
        # Of what an answer says, even if it is malformed, a server is alive.
        with self._lock:
            failed = error.kind in ("unreachable", "timeout", "error")
            self._failed_in_a_row[url] = self._failed_in_a_row[url] + 1 if failed else 0
        raise error

    def close(self) -> None:
        self._http.close()

    def _post(self, url: str, body: bytes, attempt: int) -> bytes:
        with self._under_way:
            began = perf_counter()
            try:
                status, content = self._exchange(url, body, began)
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                raise self._too_slow(url) from None
            except httpx.TransportError as error:
                said = f"{url}: {_words(error)}; is the server running there?"
                raise Unanswered("unreachable", said, again=True) from None
            except httpx.DecodingError as error:
                raise Unanswered("malformed", f"{url}: the answer cannot be decoded: {error}") from None
            finally:
                self._sent(attempt, perf_counter() - began)
        if status == 200:
            with self._lock:
                self._failed_in_a_row[url] = 0
            return content
        said = f"{url}: HTTP {status} {excerpt(content)}"
        if status >= 500 or status in (408, 429):
            raise Unanswered("error", said, again=True)
        raise Unanswered("refused", said)

    def _exchange(self, url: str, body: bytes, began: float) -> tuple[int, bytes]:
        # httpx limits the time of each read; a server that sends a little now and then must end as well.
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
    """The beginning of an answer, on one line."""
    return " ".join(content.decode(errors="replace").split())[:200] or "(empty)"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
