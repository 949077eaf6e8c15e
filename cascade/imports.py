"""What a node's process imports before it works: torch and transformers take longer than some of its steps."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def engine() -> Iterator[None]:
    """Around the import of what trains and samples: it takes little more than half the time."""
    # The collector would walk over all that is imported again and again, now and later.
    gc.disable()
    try:
        import transformers.utils
        from transformers.utils import import_utils

        # Assisted decoding and the losses of object detection, which nothing here uses, import scikit-learn and SciPy.
        for module in (transformers.utils, import_utils):
            for name in ("is_sklearn_available", "is_scipy_available"):
                setattr(module, name, _not_here)
        yield
    finally:
        gc.freeze()
        gc.enable()


def _not_here() -> bool:
    return False
