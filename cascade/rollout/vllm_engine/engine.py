"""The interface between the sampler and vLLM, colocated or on servers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascade.rollout.base import Sample, SampleRequest


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. `stop`: ids of tokens that end a response."""

    max_new_tokens: int
    temperature: float
    top_p: float
    stop: tuple[int, ...]


class Engine(Protocol):
    """A way to run vLLM. All methods are called in one event loop, and raise CascadeError if sampling cannot go on."""

    async def load(self, weights: Path) -> None:
        """Load a checkpoint's weights. Not called while requests are open."""
        ...

    async def begin(self) -> None:
        """Prepare for sampling."""
        ...

    async def respond(self, home: int, request: SampleRequest, how: Sampling) -> Sample:
        """Sample one response; repeated if an engine dies. Requests with the same `home` share a prompt, and should go
        to the same engine."""
        ...

    async def end(self) -> None:
        """Called after sampling: free the device for the trainer, if they share it."""
        ...

    async def close(self) -> None: ...
