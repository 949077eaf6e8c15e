"""Sampling, behind one protocol: token ids in, token ids and log-probabilities out."""

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


class Sampler(Protocol):
    def sample(
        self, requests: list[SampleRequest], *, max_new_tokens: int, temperature: float = 1.0, top_p: float = 1.0
    ) -> list[Sample]:
        """One sample a request, in the order of the requests."""
        ...

    def refresh(self, policy: Policy) -> None:
        """Take over the policy's current weights."""
        ...

    def close(self) -> None: ...
