from concurrent.futures import Future

import pytest

from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.vllm_engine.conversations import converse


class Held:
    """Responses that come when and in the order that a test says."""

    def __init__(self):
        self.futures: list[tuple[int, SampleRequest, Future[Sample]]] = []

    def respond(self, conversation: int, request: SampleRequest) -> Future[Sample]:
        self.futures.append((conversation, request, Future()))
        return self.futures[-1][2]


def sample(seed: int) -> Sample:
    return Sample([seed], [-1.0], True)


def immediate(conversation: int, request: SampleRequest) -> Future[Sample]:
    future: Future[Sample] = Future()
    future.set_result(sample(request.seed))
    return future


def answer(value: SampleRequest | Exception | None) -> Future[SampleRequest | None]:
    future: Future[SampleRequest | None] = Future()
    future.set_exception(value) if isinstance(value, Exception) else future.set_result(value)
    return future


REQUESTS = [SampleRequest([n], n) for n in range(3)]


def test_one_turn_each_without_anybody_to_ask():
    assert converse(REQUESTS, immediate, None) == [sample(0), sample(1), sample(2)]
    assert converse([], immediate, None) == []


def test_the_last_turn_counts_and_each_is_announced_once():
    seen = []

    def on_finish(conversation, found):
        seen.append((conversation, found.token_ids[0]))
        if conversation == 0:
            return None
        turns = sum(c == conversation for c, _ in seen)
        return answer(SampleRequest([], 10 * turns + conversation) if turns < 3 else None)

    assert [s.token_ids for s in converse(REQUESTS, immediate, on_finish)] == [[0], [21], [22]]
    assert sorted(seen) == [(0, 0), (1, 1), (1, 11), (1, 21), (2, 2), (2, 12), (2, 22)]


@pytest.mark.parametrize("where", ["engine", "environment", "on_finish"])
def test_an_error_ends_the_call_and_cancels_what_is_under_way(where):
    held = Held()

    def respond(conversation, request):
        future = held.respond(conversation, request)
        if conversation == 2:
            future.set_exception(KeyError("broken")) if where == "engine" else future.set_result(sample(2))
        return future

    def on_finish(conversation, found):
        if where == "on_finish":
            raise KeyError("broken")
        return answer(KeyError("broken"))

    with pytest.raises(KeyError, match="broken"):
        converse(REQUESTS, respond, on_finish)
    assert [future.cancelled() for _, _, future in held.futures] == [True, True, False]
