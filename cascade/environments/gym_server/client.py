"""The question to a server's `/verify`, and what makes its answer a reward."""

import json
from typing import Any

from cascade.utils.http_client import Client, Unanswered, excerpt


class VerifyClient:
    """Any number of threads may use it, for any number of servers."""

    def __init__(self, concurrency: int, answer_seconds: float):
        # Neither a proxy of the environment nor its credentials are meant for a server of the cluster.
        self._client = Client(concurrency, answer_seconds, proxies=False)

    def verify(self, url: str, request: dict[str, Any]) -> dict[str, Any]:
        """The server's answer, whose `reward` is a number in [0, 1]. Raises Unanswered."""
        body = json.dumps(request).encode()
        return self._client.ask(url, lambda attempt: body, lambda content: _read(url, content))


def _read(url: str, content: bytes) -> dict[str, Any]:
    # What a verifier says of an answer it will say again: none of this is asked for twice.
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise Unanswered("malformed", f"{url}: the answer is not JSON: {excerpt(content)}") from None
    if not isinstance(answer, dict):
        raise Unanswered("malformed", f"{url}: the answer is not a JSON object: {excerpt(content)}")
    # NeMo Gym's mark of a judge that failed. The reward beside it is 0.
    if failed := answer.get("_ng_failure_class"):
        raise Unanswered("error", f"{url}: {failed}: {answer.get('_ng_failure_judge_error', 'no reason given')}")
    reward = answer.get("reward")
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise Unanswered("malformed", f"{url}: the answer's reward is no number: {reward!r:.100}")
    if not 0 <= reward <= 1:
        raise Unanswered(
            "malformed", f"{url}: reward {reward!r:.100} is not in [0, 1]; configure the server to keep to that range"
        )
    return {**answer, "reward": float(reward)}
