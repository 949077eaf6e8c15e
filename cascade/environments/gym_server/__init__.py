"""A running NeMo Gym resources server as an environment: its `/verify` endpoint judges.

A row is NeMo Gym's own, and `gym_url` in it says where the server is (`http://host:port`). Curation writes the field,
from `gym_url` of the recipe's source; `cascade score --gym-url` stands in for it. The request is the row with
`response` (an OpenAI Responses object), the answer's `reward` is the reward. Servers whose verdict needs a session
(`/seed_session`, calls of their tools) are asked without one.

What the server leaves undecided is a failure, never reward 0; every reason names the URL:

- `server_unreachable`, `server_timeout`, `server_error`, `server_refused`: as `cascade.utils.http_client` has them; the
  server itself may also say that its judge failed, which is a `server_error`.
- `server_malformed`: no JSON object, or one without a reward in [0, 1].

A response with neither text nor a call, or with a call that cannot be read, gets reward 0 without being sent.
"""

from collections.abc import Iterator
from typing import Any

import httpx

from cascade.chat import Response, Row, prompt_of
from cascade.environments.base import Environment, Verdict
from cascade.environments.gym_server.client import VerifyClient
from cascade.environments.gym_server.request import verify_request
from cascade.errors import CascadeError, RowError
from cascade.utils.http_client import Unanswered

CONCURRENCY = 64
"""Requests under way at once in a process, over all servers: NeMo Gym's bound for the judges of its own servers."""
ANSWER_SECONDS = 300.0
"""For one verdict. A server may ask a judge of its own, which takes a while."""


class GymServer(Environment):
    name = "gym_server"

    def __init__(self, url: str | None = None, answer_seconds: float = ANSWER_SECONDS):
        """`url` stands in for the rows' own. Raises CascadeError where it is not a server's address."""
        if url is not None and not is_server_url(url):
            raise CascadeError(f"gym_server: {url!r} is not of the form http://host:port")
        self._url = url
        self._client = VerifyClient(CONCURRENCY, answer_seconds)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_gym_url`, `bad_gym_url`, `no_prompt`."""
        url = self._url or row.get("gym_url")
        if not url:
            raise RowError("no_gym_url", "gym_server: no `gym_url`; give it in the recipe's source, or --gym-url URL")
        if not isinstance(url, str) or not is_server_url(url):
            raise RowError("bad_gym_url", f"gym_server: gym_url {url!r} is not of the form http://host:port")
        prompt_of(row)

    def verify(self, row: Row, response: Response) -> Verdict:
        if response.malformed:
            return Verdict(0.0, reason=response.malformed)
        if not response.content.strip() and not response.tool_calls:
            return Verdict(0.0, reason="the response has neither a call nor text")
        request, url = verify_request(row, response), self._url or row["gym_url"]
        try:
            answer = self._client.verify(url.rstrip("/") + "/verify", request)
        except Unanswered as error:
            return Verdict(None, failure=f"server_{error.kind}", reason=str(error))
        return Verdict(answer.pop("reward"), extracted=_added(answer, request), reason=f"judged by {url}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Raises CascadeError: the tasks are the server's."""
        raise CascadeError(
            "gym_server has no tasks of its own; give the server's rows as path or dataset, with gym_url"
        )


def is_server_url(text: str) -> bool:
    """Whether it is an address to ask at: http or https, a host, perhaps a port and a path; no password."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    if url.userinfo or url.query or url.fragment or not (url.port is None or 0 < url.port < 1 << 16):
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _added(answer: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """What the server says beside the reward; it also sends back all that it was sent."""
    return {key: value for key, value in answer.items() if key not in request}


ENVIRONMENT = GymServer()
