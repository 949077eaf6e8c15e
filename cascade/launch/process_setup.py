"""Setup of a process: its environment, the threads of its libraries, a faster import of the engine.

Imports only light modules, because `cascade --help` and the clients of the fork server import it.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascade.recipe import Recipe

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Environment of every command: no telemetry. MLflow's own jobs (judges, optimizers of prompts) are not used, and would
keep seven processes."""


SPINS = 1000
"""How often a waiting OpenMP thread looks before it sleeps, some 0.05 ms: longer than the next product of a small model
is away, and short against what it waits where another process has its partner's core. The default is 300,000."""


def has_gpu() -> bool:
    """Whether this machine has NVIDIA GPUs, by its device files, because importing torch takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists())


def thread_settings(recipe: "Recipe") -> dict[str, str]:
    """Environment variables that libraries read when they are imported."""
    threads = {f"{library}_NUM_THREADS": str(recipe.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    spins = os.environ.get("GOMP_SPINCOUNT", str(SPINS))
    return {**threads, "GOMP_SPINCOUNT": spins, "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def importing_engine() -> Iterator[None]:
    """Context for importing the training and sampling engine, in little more than half the time."""
    # The garbage collector would traverse all imported objects again and again.
    gc.disable()
    try:
        import transformers.utils
        from transformers.utils import import_utils

        # Assisted decoding and the losses of object detection, which nothing here uses, import scikit-learn and SciPy.
        for module in (transformers.utils, import_utils):
            for name in ("is_sklearn_available", "is_scipy_available"):
                setattr(module, name, _unavailable)
        yield
    finally:
        gc.freeze()
        gc.enable()


def _unavailable() -> bool:
    return False
