"""vLLM on servers: data-parallel replicas given by URL. Requests are distributed by prompt; those of a server that died
go to the others.

A restarted server has old weights, and loads the current ones before it gets a request. Probes notice a restart,
because a server takes longer to start than the time between two probes.
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
"""Time between two probes of a server."""
PROBE_TIMEOUT_SECONDS = 30.0
"""Timeout of a probe: a busy server is slow, a killed one refuses the connection at once."""
DEADLINE_SECONDS = 900.0
"""How long a request waits when no server is available: a large model takes minutes to start."""
ATTEMPTS = 8
"""Number of attempts per request, each at a server that was available when the attempt started."""
BACKOFF_SECONDS = 0.5
"""Wait before the second attempt; doubled for each later one."""


class _LostError(Exception):
    """The server died, or failed, before it answered the request."""


class Servers:
    """`urls`: http://host:port of vLLM servers that were started with VLLM_SERVER_DEV_MODE=1, each with the whole
    model. They read weights from the directory to which the trainer writes them."""

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
        """Send no weights to any server until `join`: another process is about to load new weights into all of them."""
        await self._stop_tending()

    def loaded(self) -> list[str]:
        """URLs of the servers that have the current weights."""
        return [replica.url for replica in self._replicas if replica.up]

    async def join(self, weights: Path, loaded: list[str]) -> None:
        """Continue with weights that another process has loaded into the servers `loaded`."""
        for replica in self._replicas:
            if replica.url in loaded:
                replica.has(weights)
        await self._watch(weights)

    async def begin(self) -> None:
        """Nothing to do: servers are always ready."""

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
        """Nothing to do: servers have their own devices."""

    async def close(self) -> None:
        await self._stop_tending()
        for replica in self._replicas:
            await replica.close()

    async def _choose(self, home: int) -> "_Replica":
        """The server for this `home`, or another if that one is down. Waits for a server up to the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_SECONDS
        while not (available := [replica for replica in self._replicas if replica.up]):
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
        return own if own.up else available[home % len(available)]

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
    """One server. `up`: it responds, and has the current weights."""

    def __init__(self, url: str):
        self.up = False
        self.problem = ""
        self.url = url
        self._weights: Path | None = None
        self._requests: set[asyncio.Task[httpx.Response]] = set()
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(None, connect=PROBE_TIMEOUT_SECONDS),  # Probes find out whether the server died.
            limits=httpx.Limits(keepalive_expiry=2),  # Shorter than vLLM's 5 s, after which the server closes it.
        )

    def has(self, weights: Path) -> None:
        """Record that another process has loaded these weights into the server."""
        self._weights = weights

    async def look(self, weights: Path) -> None:
        """Probe the server, and load the weights unless it has them. Raises CascadeError if it runs but cannot load
        them."""
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
            # Without these the server would use those of the model's generation config.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": request.seed,
            "stop_token_ids": list(how.stop),
            "ignore_eos": True,  # `stop` has all tokens that end a response.
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
            await self._probe()  # Raises if it died, and it may be restarted; if it runs, it cannot load them at all.
            raise CascadeError(f"{self.url}: cannot load {weights} ({_failure(reply)}); does it see this directory?")
        (await self._http.post("/reset_prefix_cache")).raise_for_status()

    async def _interruptible(self, call: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Await the reply. Raises _LostError if a probe finds the server dead before the reply arrives."""
        task = asyncio.create_task(call)
        self._requests.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            raise _LostError(self.problem) from None
        finally:
            self._requests.discard(task)

    def _lose(self, error: Exception | str) -> None:
        """Mark the server as down, until it responds to a probe; it then has to load the current weights."""
        if self.up:
            say(f"rollout: {self.url} is lost ({error or type(error).__name__}); its requests go to another, or wait")
        self.up, self._weights = False, None
        self.problem = f"{self.url}: {error or type(error).__name__}"
        for task in self._requests:
            task.cancel()


def _failure(reply: httpx.Response) -> str:
    return f"HTTP {reply.status_code} {' '.join(reply.text[:200].split())}"
