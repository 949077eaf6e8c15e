"""Many conversations under way at once, over an engine that batches continuously."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from cascade.rollout.base import OnFinish, Sample, SampleRequest

Respond = Callable[[int, SampleRequest], Future[Sample]]
"""(conversation, request) → its response, some time later."""


def converse(requests: list[SampleRequest], respond: Respond, on_finish: OnFinish | None) -> list[Sample]:
    """One conversation a request, all of them begun at once; the sample of each one's last turn.

    A conversation's next turn is asked for as soon as its environment has answered, while others are still sampled.
    An exception of the engine, of `on_finish` or of an environment is raised here, and what is under way is cancelled.
    """
    last: dict[int, Sample] = {}
    under_way: dict[int, Future[Any]] = {}
    done: SimpleQueue[int] = SimpleQueue()

    def expect(conversation: int, future: Future[Any]) -> None:
        under_way[conversation] = future
        future.add_done_callback(partial(_announce, done, conversation))

    try:
        for conversation, request in enumerate(requests):
            expect(conversation, respond(conversation, request))
        while under_way:
            conversation = done.get()
            found = under_way.pop(conversation).result()
            if isinstance(found, Sample):
                last[conversation] = found
                answer = on_finish(conversation, found) if on_finish else None
                if answer is not None:
                    expect(conversation, answer)
            elif found is not None:
                expect(conversation, respond(conversation, found))
    finally:
        for future in under_way.values():
            future.cancel()
    return [last[conversation] for conversation in range(len(requests))]


def _announce(done: SimpleQueue[int], conversation: int, _: Future[Any]) -> None:
    done.put(conversation)
