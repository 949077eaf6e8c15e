"""The model being trained: the Policy protocol and the engines that implement it."""

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.policy.base import Policy
from cascade.recipe import Lora, Optimizer, Parallel, Quantization
from cascade.utils import distributed

ENGINES = {"hf": ("cascade.policy.hf", "HFPolicy"), "nemo": ("cascade.policy.nemo", "NemoPolicy")}


def make_policy(
    engine: str,
    checkpoint: Path,
    optimizer: Optimizer | None,
    *,
    update_router: bool = False,
    parallel: Parallel | None = None,
    checkpoint_dtype: str = "init",
    lora: Lora | None = None,
    seed: int = 0,
    quantization: Quantization | None = None,
) -> Policy:
    """Load a checkpoint into an engine, on this process's GPU if there is one. Without optimizer it only scores.
    `seed`: of the adapters of `lora`. `quantization`: compute with fake-quantised weights (engine hf).

    Raises CascadeError for an unknown engine, CheckpointError for a directory that is no checkpoint.
    """
    module, name = ENGINES.get(engine, ("", ""))
    if not module or find_spec(module) is None:
        raise CascadeError(f"policy engine {engine!r} is not here; `cascade doctor` lists the engines")
    parallel = parallel or Parallel()
    whole = {
        "checkpoint_activations": parallel.checkpoint_activations,
        "checkpoint_dtype": checkpoint_dtype,
        "lora": lora,
        "seed": seed,
        "quantization": quantization,
    }
    settings: dict[str, Any] = {"parallel": parallel} if engine == "nemo" else whole
    make = getattr(importlib.import_module(module), name)
    policy: Policy = make(checkpoint, optimizer, distributed.device(), update_router=update_router, **settings)
    return policy
