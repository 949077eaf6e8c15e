"""vLLM colocated with the trainer: a separate engine process on the trainer's device, in sleep mode during training."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from cascade.errors import CascadeError
from cascade.policy.quantization.formats import FORMATS
from cascade.policy.quantization.store import is_quantized, stored_format
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.vllm_engine.engine import Sampling
from cascade.utils.orphans import Tether
from cascade.utils.progress import say

WORKERS = {
    "cuda": "cascade.rollout.vllm_engine.worker_gpu.ReloadingWorker",
    "cpu": "cascade.rollout.vllm_engine.worker_cpu.ReloadingCPUWorker",
}
MAX_DEATHS = 3
"""After more than so many consecutive engine failures without a response, the engine is not restarted."""


def has_avx512() -> bool:
    """False on an x86 processor without; others have kernels of their own."""
    found = torch.cpu.get_capabilities()
    return found["architecture"] != "x86_64" or bool(found["avx512_f"])


class LocalEngine:
    """`memory`: the share of the device's memory that the engine takes. On a GPU it frees that memory between sampling
    phases, with its weights moved to the host. An engine process that dies is restarted with the current weights, and
    its open requests are repeated with the same seeds. The process ends with the trainer.

    It computes in the trainer's dtype: bfloat16 on a GPU, float32 on the CPU, where vLLM has kernels for quantised
    weights in bfloat16 alone.
    """

    def __init__(self, device: str, memory: float):
        self._shares_gpu = device == "cuda"
        self._memory = memory
        self._weights = Path()
        self._engine: Any = None  # An AsyncLLM, from the first load on.
        self._asleep: set[str] = set()
        self._deaths = 0
        self._restarting = asyncio.Lock()
        self._tether = Tether()

    async def load(self, weights: Path) -> None:
        self._weights = weights
        if self._engine is None:
            self._engine = self._make()
            return
        try:
            await self._wake("weights")
            await self._call("collective_rpc", "reload_weights", kwargs={"weights_path": str(weights)})
            await self._call("reset_prefix_cache")
        except EngineDeadError:
            await self._restart(self._engine)

    async def begin(self) -> None:
        try:
            await self._wake("weights", "kv_cache")
        except EngineDeadError:
            await self._restart(self._engine)

    async def respond(self, home: int, request: SampleRequest, how: Sampling) -> Sample:
        longest = self._engine.model_config.max_model_len
        if len(request.prompt) + how.max_new_tokens > longest:
            raise CascadeError(
                f"rollout engine vllm: {len(request.prompt)} prompt tokens and max_new_tokens {how.max_new_tokens} "
                f"do not fit into its {longest} tokens; raise rollout.memory or lower max_new_tokens"
            )
        parameters = SamplingParams(
            max_tokens=how.max_new_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            seed=request.seed,
            stop_token_ids=list(how.stop),
            ignore_eos=True,  # `stop` has all tokens that end a response.
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        while True:
            engine = self._engine
            try:
                prompt = {"prompt_token_ids": request.prompt}
                async for output in engine.generate(prompt, parameters, request_id=uuid.uuid4().hex):
                    if output.finished:
                        self._deaths = 0
                        return _sample(output.outputs[0])
            except EngineDeadError:
                await self._restart(engine)

    async def end(self) -> None:
        if self._shares_gpu:
            try:
                await self._call("sleep", 1)
                self._asleep = {"weights", "kv_cache"}
            except EngineDeadError:
                await self._restart(self._engine)

    async def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None
        self._tether.release()

    async def _wake(self, *parts: str) -> None:
        if self._asleep:
            torch.cuda.empty_cache()  # Returns what the trainer has freed to the device.
        for part in parts:
            if part in self._asleep:
                await self._call("wake_up", [part])
                self._asleep.remove(part)

    async def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call the engine process. Raises EngineDeadError if it dies during the call; vLLM itself would wait on."""
        engine = self._engine
        call = asyncio.ensure_future(getattr(engine, method)(*arguments, **named))
        while not call.done():
            await asyncio.wait({call}, timeout=0.5)
            if engine.errored and not call.done():
                call.cancel()
                raise engine.dead_error
        return call.result()

    async def _restart(self, dead: AsyncLLM) -> None:
        async with self._restarting:
            if self._engine is not dead:
                return  # Another request has restarted it.
            self._deaths += 1
            if self._deaths > MAX_DEATHS:
                raise CascadeError(
                    f"rollout engine vllm died {self._deaths} times without a response; see its log above"
                )
            say("rollout: the vLLM engine died; it is started again and asked again what it had not finished")
            dead.shutdown()
            self._engine = self._make()

    def _make(self) -> AsyncLLM:
        self._asleep = set()
        if not self._shares_gpu and stored_format(self._weights) == FORMATS["int4"] and not has_avx512():
            # vLLM (seen in 0.32) starts nevertheless, and each of its engines ends at the first request.
            raise CascadeError(
                "rollout engine vllm: its CPU build multiplies by int4 with AVX-512 alone, which this processor does "
                "not have; set rollout.engine to torch, or sample on a GPU"
            )
        settings = AsyncEngineArgs(
            model=str(self._weights),
            skip_tokenizer_init=True,
            dtype="bfloat16" if self._shares_gpu or is_quantized(self._weights) else "float32",
            max_model_len=-1,  # The model's own length, or what fits into memory.
            gpu_memory_utilization=self._memory,
            enable_sleep_mode=self._shares_gpu,
            # On the CPU, compiled code would keep using the packed copies of the weights that it was traced with.
            enforce_eager=not self._shares_gpu,
            worker_cls=WORKERS["cuda" if self._shares_gpu else "cpu"],
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            disable_log_stats=True,
        )
        try:
            with self._tether.tie():
                return AsyncLLM.from_engine_args(settings)
        except (RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())[:300]
            raise CascadeError(f"rollout engine vllm does not start on {self._weights}: {line}") from None


def _sample(completion: CompletionOutput) -> Sample:
    if completion.finish_reason not in ("stop", "length"):
        raise CascadeError(f"rollout engine vllm ended a response with {completion.finish_reason!r}; see its log above")
    ids = list(completion.token_ids)
    log_probs = [entry[token].logprob for token, entry in zip(ids, completion.logprobs, strict=True)]
    return Sample(ids, log_probs, completion.finish_reason == "stop")
