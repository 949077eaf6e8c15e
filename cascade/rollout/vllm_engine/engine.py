"""What the sampler needs of vLLM, wherever it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascade.rollout.base import Sample, SampleRequest


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled. `stop`: tokens that end one."""

    max_new_tokens: int
    temperature: float
    top_p: float
    stop: tuple[int, ...]


class Engine(Protocol):
    """Where vLLM runs. Everything is called in one event loop. All methods raise CascadeError when it cannot go on."""

    async def load(self, weights: Path) -> None:
        """Take over a checkpoint's weights; nothing is being sampled."""
        ...

    async def begin(self) -> None:
        """Make ready to sample."""
        ...

    async def respond(self, home: int, request: SampleRequest, how: Sampling) -> Sample:
        """Sample one response, whatever dies meanwhile. Requests of one `home` are best kept together."""
        ...

    async def end(self) -> None:
        """Sampling is over: leave the device to the trainer, where it is shared."""
        ...

    async def close(self) -> None: ...
