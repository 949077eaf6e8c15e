"""What a process sets before it works: its environment, the threads of its libraries, how the engine is imported.

Imports nothing heavy: `cascade --help` and the clients of the fork server come through here.
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


def has_gpu() -> bool:
    """Whether this machine shows NVIDIA GPUs to its processes: by its devices, since importing torch takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists())


def thread_settings(recipe: "Recipe") -> dict[str, str]:
    """What libraries read from the environment when they are imported."""
    threads = {f"{library}_NUM_THREADS": str(recipe.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    return {**threads, "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def importing_engine() -> Iterator[None]:
    """Around the import of what trains and samples: it takes little more than half the time."""
    # The collector would walk over all that is imported again and again, now and later.
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
