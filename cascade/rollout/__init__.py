"""Sampling: one protocol, engines behind it."""

import importlib
import math

from cascade.errors import CascadeError
from cascade.policy.base import Policy
from cascade.policy.checkpoint import time_step_limit
from cascade.recipe import Rollout
from cascade.rollout.base import Sampler

ENGINES = {
    "torch": ("cascade.rollout.torch_engine.sampler", "TorchSampler"),
    "vllm": ("cascade.rollout.vllm_engine.sampler", "VLLMSampler"),
}


def make_sampler(settings: Rollout, policy: Policy, threads: int = 1) -> Sampler:
    """A sampler of the policy's current weights, of the engine that the recipe names. On CPUs the torch engine uses as
    many processes as it may use `threads`.

    Raises CascadeError for an engine that is not installed, or that would sample from another policy.
    """
    if settings.engine == "vllm" and (limit := time_step_limit(policy.config)) not in (None, (0.0, math.inf)):
        raise CascadeError(
            f"config.json: time_step_limit {limit}: vLLM does not limit the time step of Mamba layers; "
            "say rollout.engine torch"
        )
    if settings.engine == "torch" and policy.device.type == "cpu" and threads > 1:
        from cascade.rollout.torch_engine.processes import ProcessSampler

        return ProcessSampler(policy, threads)
    module, name = ENGINES[settings.engine]
    engine = getattr(importlib.import_module(module), name)
    sampler: Sampler = engine(policy, settings) if settings.engine == "vllm" else engine(policy)
    return sampler
