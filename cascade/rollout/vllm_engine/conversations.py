"""Many concurrent conversations with an engine that does continuous batching."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from cascade.rollout.base import OnFinish, Sample, SampleRequest

Respond = Callable[[int, SampleRequest], Future[Sample]]
"""(conversation, request) → future of the response."""


def converse(requests: list[SampleRequest], respond: Respond, on_finish: OnFinish | None) -> list[Sample]:
    """Start one conversation per request, all at once. Returns the sample of the last turn of each.

    A conversation's next turn is requested as soon as its environment has answered, while others are still sampled.
    Exceptions of the engine, of `on_finish` and of environments are raised here; open requests are then cancelled.
    """
    last: dict[int, Sample] = {}
    futures: dict[int, Future[Any]] = {}
    done: SimpleQueue[int] = SimpleQueue()

    def expect(conversation: int, future: Future[Any]) -> None:
        futures[conversation] = future
        future.add_done_callback(partial(_announce, done, conversation))

    try:
        for conversation, request in enumerate(requests):
            expect(conversation, respond(conversation, request))
        while futures:
            conversation = done.get()
            result = futures.pop(conversation).result()
            if isinstance(result, Sample):
                last[conversation] = result
                answer = on_finish(conversation, result) if on_finish else None
                if answer is not None:
                    expect(conversation, answer)
            elif result is not None:
                expect(conversation, respond(conversation, result))
    finally:
        for future in futures.values():
            future.cancel()
    return [last[conversation] for conversation in range(len(requests))]


def _announce(done: SimpleQueue[int], conversation: int, _: Future[Any]) -> None:
    done.put(conversation)
