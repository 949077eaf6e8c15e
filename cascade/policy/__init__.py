"""The model being trained: one protocol, engines behind it."""

import importlib
from importlib.util import find_spec
from pathlib import Path

import torch

from cascade.errors import CascadeError
from cascade.policy.base import Policy
from cascade.recipe import Optimizer

ENGINES = {"hf": ("cascade.policy.hf", "HFPolicy"), "nemo": ("cascade.policy.nemo", "NemoPolicy")}


def make_policy(engine: str, checkpoint: Path, optimizer: Optimizer | None, *, update_router: bool = False) -> Policy:
    """Load a checkpoint into an engine, on the GPU where there is one; without an optimizer, only to score with.

    Raises CascadeError for an unknown engine, CheckpointError for a directory that is no checkpoint.
    """
    module, name = ENGINES.get(engine, ("", ""))
    if not module or find_spec(module) is None:
        raise CascadeError(f"policy engine {engine!r} is not here; `cascade doctor` lists the engines")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy: Policy = getattr(importlib.import_module(module), name)(checkpoint, optimizer, device, update_router)
    return policy
