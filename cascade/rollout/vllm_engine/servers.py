"""vLLM on servers: data-parallel replicas by address, requests shared out by prompt, the dead ones' taken over.

A server that was started again has other weights, and is given the current ones before it is asked anything. That it
was away is seen because it takes longer to start than the time between two probes.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx

from cascade.errors import CascadeError
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.vllm_engine.engine import Sampling
from cascade.utils.progress import say

PROBE_SECONDS = 2.0
"""Between two probes of a server."""
PROBE_TIMEOUT_SECONDS = 30.0
"""The longest that a reply to a probe may take: a busy server is slow, one that was killed refuses at once."""
DEADLINE_SECONDS = 900.0
"""How long a request waits for a server when none is there: a large model takes minutes to start."""
ATTEMPTS = 8
"""Of one request, each at a server that was there when it began."""
BACKOFF_SECONDS = 0.5
"""Before the first further attempt; doubled before each later one."""


class _LostError(Exception):
    """The server went away, or failed, with the request unanswered."""


class Servers:
    """`urls` are http://host:port of vLLM servers that were started with VLLM_SERVER_DEV_MODE=1, each with the whole
    model. They read the weights from the same directory as the trainer writes them to."""

    def __init__(self, urls: list[str]):
        self._replicas = [_Replica(url) for url in urls]
        self._weights = Path()
        self._error: CascadeError | None = None
        self._waiting = False
        self._tending: list[asyncio.Task[None]] = []

    async def load(self, weights: Path) -> None:
        await self._stop_tending()
        await self._watch(weights)

    async def rest(self) -> None:
        """Give no server any weights until `join`: another process is about to have them all load new ones."""
        await self._stop_tending()

    def loaded(self) -> list[str]:
        """The addresses of the servers that have the current weights."""
        return [replica.url for replica in self._replicas if replica.up]

    async def join(self, weights: Path, loaded: list[str]) -> None:
        """Go on with weights that another process has had these servers load."""
        for replica in self._replicas:
            if replica.url in loaded:
                replica.has(weights)
        await self._watch(weights)

    async def begin(self) -> None:
        """Servers are always ready."""

    async def respond(self, home: int, request: SampleRequest, how: Sampling) -> Sample:
        for attempt in range(ATTEMPTS):
            replica = await self._choose(home)
            try:
                return await replica.complete(request, how)
            except _LostError as lost:
                error = lost
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt)
        raise CascadeError(f"rollout: vLLM servers failed the same request {ATTEMPTS} times, at last {error}")

    async def end(self) -> None:
        """Servers have devices of their own."""

    async def close(self) -> None:
        await self._stop_tending()
        for replica in self._replicas:
            await replica.close()

    async def _choose(self, home: int) -> "_Replica":
        """The server of this home, or one that stands in for it. Waits for one, within the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_SECONDS
        while not (there := [replica for replica in self._replicas if replica.up]):
            if self._error:
                raise self._error
            problem = self._replicas[0].problem
            if loop.time() > deadline:
                raise CascadeError(
                    f"rollout: no vLLM server for {DEADLINE_SECONDS:.0f} s ({problem}); start them, then rerun"
                )
            if not self._waiting:
                say(f"rollout: waiting for a vLLM server ({problem})")
                self._waiting = True
            await asyncio.sleep(0.2)
        self._waiting = False
        own = self._replicas[home % len(self._replicas)]
        return own if own.up else there[home % len(there)]

    async def _watch(self, weights: Path) -> None:
        self._weights = weights
        await asyncio.gather(*(replica.look(weights) for replica in self._replicas))
        self._error = None
        self._tending = [asyncio.create_task(self._tend(replica)) for replica in self._replicas]
        await self._choose(0)

    async def _tend(self, replica: "_Replica") -> None:
        try:
            while True:
                await asyncio.sleep(PROBE_SECONDS)
                await replica.look(self._weights)
        except CascadeError as error:
            self._error = error

    async def _stop_tending(self) -> None:
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)


class _Replica:
    """One server. `up`: it answers, and has the current weights."""

    def __init__(self, url: str):
        self.up = False
        self.problem = ""
        self.url = url
        self._weights: Path | None = None
        self._under_way: set[asyncio.Task[httpx.Response]] = set()
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(None, connect=PROBE_TIMEOUT_SECONDS),  # Probes tell whether a response still comes.
            limits=httpx.Limits(keepalive_expiry=2),  # Less than vLLM's 5 s: none is used as the server closes it.
        )

    def has(self, weights: Path) -> None:
        """The server has been given these weights by another process."""
        self._weights = weights

    async def look(self, weights: Path) -> None:
        """Probe, and give it the weights that it lacks. Raises CascadeError where it lives, but cannot take them."""
        try:
            await self._probe()
            if self._weights != weights:
                self.up = False
                await self._reload(weights)
        except httpx.HTTPError as error:
            self._lose(error)
        else:
            if self.problem:
                say(f"rollout: {self.url} takes part")
            self.up, self.problem, self._weights = True, "", weights

    async def complete(self, request: SampleRequest, how: Sampling) -> Sample:
        body = {
            "prompt": request.prompt,
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            # The server would take these from the model's generation config.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": request.seed,
            "stop_token_ids": list(how.stop),
            "ignore_eos": True,  # `stop` says it all.
            "logprobs": 0,
            "return_token_ids": True,
        }
        try:
            reply = await self._interruptible(self._http.post("/v1/completions", json=body))
        except httpx.TransportError as error:
            self._lose(error)
            raise _LostError(self.problem) from None
        if reply.is_server_error:
            self._lose(_failure(reply))
            raise _LostError(self.problem)
        if not reply.is_success:
            raise CascadeError(
                f"{self.url}: {_failure(reply)}; start it with another --max-model-len or change the recipe"
            )
        choice = reply.json()["choices"][0]
        if choice["finish_reason"] not in ("stop", "length"):
            raise _LostError(f"{self.url}: ended a response with {choice['finish_reason']!r}")
        return Sample(choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"] == "stop")

    async def close(self) -> None:
        await self._http.aclose()

    async def _probe(self) -> None:
        (await self._http.get("/health", timeout=PROBE_TIMEOUT_SECONDS)).raise_for_status()

    async def _reload(self, weights: Path) -> None:
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
        reply = await self._http.post("/collective_rpc", json=call)
        if reply.status_code == 404:
            raise CascadeError(f"{self.url}: has no /collective_rpc; start it with VLLM_SERVER_DEV_MODE=1")
        if not reply.is_success:
            await self._probe()  # Dead, then it will be started again; alive, then it never will load them.
            raise CascadeError(f"{self.url}: cannot load {weights} ({_failure(reply)}); does it see this directory?")
        (await self._http.post("/reset_prefix_cache")).raise_for_status()

    async def _interruptible(self, call: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Await the reply; raises _LostError where a probe finds the server gone before it comes."""
        task = asyncio.create_task(call)
        self._under_way.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            raise _LostError(self.problem) from None
        finally:
            self._under_way.discard(task)

    def _lose(self, error: Exception | str) -> None:
        """Away until it answers a probe, and then without the current weights."""
        if self.up:
            say(f"rollout: {self.url} is lost ({error or type(error).__name__}); its requests go to another, or wait")
        self.up, self._weights = False, None
        self.problem = f"{self.url}: {error or type(error).__name__}"
        for task in self._under_way:
            task.cancel()


def _failure(reply: httpx.Response) -> str:
    return f"HTTP {reply.status_code} {' '.join(reply.text[:200].split())}"
