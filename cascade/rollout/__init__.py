"""Sampling: one protocol, engines behind it."""

import importlib
from importlib.util import find_spec

from cascade.errors import CascadeError
from cascade.policy.base import Policy
from cascade.rollout.base import Sampler

ENGINES = {
    "torch": ("cascade.rollout.torch_sampler", "TorchSampler"),
    "vllm": ("cascade.rollout.vllm_sampler", "VLLMSampler"),
}


def make_sampler(engine: str, policy: Policy) -> Sampler:
    """A sampler of the policy's current weights. Raises CascadeError for an unknown engine."""
    module, name = ENGINES.get(engine, ("", ""))
    if not module or find_spec(module) is None:
        raise CascadeError(f"rollout engine {engine!r} is not here; `cascade doctor` lists the engines")
    sampler: Sampler = getattr(importlib.import_module(module), name)(policy)
    return sampler
