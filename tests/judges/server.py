"""A server that speaks the OpenAI chat API and answers as a test tells it to."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cascade.judges.settings import PreferenceEndpoint
from tests.loopback import Loopback, Reply, running

Completion = Callable[[dict], str | bytes | int | Reply]
"""From a request's body: the text of the completion, or a whole body, or an HTTP status, or anything."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class ChatServer(Loopback):
    def __init__(self, complete: Completion):
        super().__init__(lambda body: _reply(complete(body)))

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def endpoint(self, **settings) -> PreferenceEndpoint:
        return PreferenceEndpoint(url=self.url, model="judge", **{"timeout_seconds": 5, **settings})


def completion(text: str, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}], "usage": USAGE}).encode()


def _reply(answer: str | bytes | int | Reply) -> Reply:
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, int):
        return Reply(answer, b"the server says no")
    return Reply(200, completion(answer) if isinstance(answer, str) else answer)


@contextmanager
def serving(complete: Completion) -> Iterator[ChatServer]:
    with running(ChatServer(complete)) as server:
        yield server


def verdict(score_1: float, score_2: float, ranking: float) -> str:
    return "Both are fine. " + json.dumps({"score_1": score_1, "score_2": score_2, "ranking": ranking})
