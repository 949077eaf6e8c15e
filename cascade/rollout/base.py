"""Sampling, behind one protocol: token ids in, token ids and log-probabilities out."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from cascade.policy.base import Policy


@dataclass(frozen=True)
class SampleRequest:
    """One response to sample. The draw depends on `seed` alone, not on what else is in the batch."""

    prompt: list[int]
    seed: int


@dataclass(frozen=True)
class Sample:
    """What was sampled after the prompt, the end-of-turn token included where `finished`.

    `log_probs[i]` is log π_inf(token i | before) at the temperature of sampling, in nats.
    """

    token_ids: list[int]
    log_probs: list[float]
    finished: bool


OnFinish = Callable[[int, Sample], Future[SampleRequest | None] | None]
"""(i, sample) → the next turn of conversation i: a future of its request, or of None where the conversation turns out
to be over; None where it is over already."""


class Sampler(Protocol):
    def sample(
        self,
        requests: list[SampleRequest],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_finish: OnFinish | None = None,
    ) -> list[Sample]:
        """One conversation a request; the sample of each one's last turn, in the order of the requests.

        `on_finish` is called in the calling thread, once for every turn, as soon as its response is finished or has
        `max_new_tokens`; without it, every conversation has one turn. A request that its future resolves to is sampled
        as the conversation's next turn: at once where the engine batches continuously, or, where the composition
        of a batch changes rounding, together with the others' next turns. An exception of `on_finish` or of a future
        ends the call.
        """
        ...

    def refresh(self, policy: Policy) -> None:
        """Take over the policy's current weights."""
        ...

    def close(self) -> None: ...
