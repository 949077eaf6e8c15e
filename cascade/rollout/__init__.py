"""Sampling: one protocol, engines behind it."""

import importlib

from cascade.policy.base import Policy
from cascade.recipe import Rollout
from cascade.rollout.base import Sampler

ENGINES = {
    "torch": ("cascade.rollout.torch_engine.sampler", "TorchSampler"),
    "vllm": ("cascade.rollout.vllm_engine.sampler", "VLLMSampler"),
}


def make_sampler(settings: Rollout, policy: Policy) -> Sampler:
    """A sampler of the policy's current weights, of the engine that the recipe names.

    Raises CascadeError for an engine that is not installed.
    """
    module, name = ENGINES[settings.engine]
    engine = getattr(importlib.import_module(module), name)
    sampler: Sampler = engine(policy, settings) if settings.engine == "vllm" else engine(policy)
    return sampler
