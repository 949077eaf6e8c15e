"""Asking a server over HTTP: bounded in concurrency, time, attempts and size."""

import json
import threading
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import httpx

MAX_ANSWER = 64 * 2**20
"""Bytes. A server sends back what it was sent, so an answer is about as long as its request."""


@dataclass(frozen=True)
class Limits:
    concurrency: int = 64
    """Requests under way at once, over all servers and threads."""
    connect_seconds: float = 10.0
    answer_seconds: float = 300.0
    """From sending to the end of the answer. A verifier may ask a judge of its own, which takes a while."""
    attempts: int = 4
    backoff_seconds: float = 0.5
    """Before the second attempt; doubled before each further one."""


class Undecided(Exception):
    """There is no verdict; `code` is the failure's."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class VerifyClient:
    """Any number of threads may use it; it keeps connections open between requests."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._slots = threading.BoundedSemaphore(limits.concurrency)
        # Neither a proxy of the environment nor the credentials of a .netrc are meant for a server of the cluster.
        self._http = httpx.Client(
            timeout=httpx.Timeout(limits.answer_seconds, connect=limits.connect_seconds, pool=None),
            limits=httpx.Limits(max_connections=limits.concurrency),
            trust_env=False,
        )
        self._unreachable: set[str] = set()

    def verify(self, url: str, request: dict[str, Any]) -> dict[str, Any]:
        """The server's answer, whose `reward` is a number in [0, 1]. Raises Undecided."""
        body = json.dumps(request).encode()
        # Where all attempts just failed, another request does not wait through all of them again.
        attempts = 1 if url in self._unreachable else self._limits.attempts
        failure = Undecided("server_unreachable", url)
        for attempt in range(attempts):
            if attempt:
                sleep(self._limits.backoff_seconds * 2 ** (attempt - 1))
            try:
                with self._slots:
                    status, content = self._post(url, body)
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                raise _too_slow(url, self._limits) from None
            except httpx.DecodingError as error:
                raise Undecided("bad_answer", f"{url}: the answer cannot be decoded: {error}") from None
            except httpx.TransportError as error:
                failure = Undecided("server_unreachable", f"{url}: {_words(error)}; is the server running there?")
                continue
            self._unreachable.discard(url)
            if status == 200:
                return _read(url, content)
            failure = Undecided("server_error", f"{url}: HTTP {status}: {_excerpt(content)}")
            if status < 500 and status != 429:
                break
        if failure.code == "server_unreachable":
            self._unreachable.add(url)
        raise failure

    def _post(self, url: str, body: bytes) -> tuple[int, bytes]:
        # httpx limits the time of each read; a server that sends a little now and then must end as well.
        deadline = monotonic() + self._limits.answer_seconds
        content = bytearray()
        with self._http.stream("POST", url, content=body, headers={"Content-Type": "application/json"}) as answer:
            for part in answer.iter_bytes():
                content += part
                if monotonic() > deadline:
                    raise _too_slow(url, self._limits)
                if len(content) > MAX_ANSWER:
                    raise Undecided("bad_answer", f"{url}: the answer is longer than {MAX_ANSWER >> 20} MiB")
            return answer.status_code, bytes(content)


def _read(url: str, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise Undecided("bad_answer", f"{url}: the answer is not JSON: {_excerpt(content)}") from None
    if not isinstance(answer, dict):
        raise Undecided("bad_answer", f"{url}: the answer is not a JSON object: {_excerpt(content)}")
    # NeMo Gym's mark of a judge that failed. The reward beside it is 0.
    if failed := answer.get("_ng_failure_class"):
        raise Undecided("server_error", f"{url}: {failed}: {answer.get('_ng_failure_judge_error', 'no reason given')}")
    reward = answer.get("reward")
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise Undecided("bad_answer", f"{url}: the answer's reward is no number: {reward!r:.100}")
    if not 0 <= reward <= 1:
        raise Undecided(
            "bad_answer", f"{url}: reward {reward!r:.100} is not in [0, 1]; configure the server to keep to that range"
        )
    return {**answer, "reward": float(reward)}


def _too_slow(url: str, limits: Limits) -> Undecided:
    return Undecided("timeout", f"{url}: no answer within {limits.answer_seconds:g} s")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _excerpt(content: bytes) -> str:
    return " ".join(content.decode(errors="replace").split())[:200] or "(empty)"
