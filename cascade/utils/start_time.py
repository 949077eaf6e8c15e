"""What a process need not import."""

import sys


def without_sklearn() -> None:
    """Tell transformers that there is no scikit-learn, before it imports its generation code: half of the seconds that
    this takes are scikit-learn's, of which it uses one function, in assisted decoding."""
    if "sklearn" in sys.modules:
        return
    from transformers.utils.import_utils import is_sklearn_available

    sys.modules["sklearn"] = None  # type: ignore[assignment]  # So that it is not found.
    try:
        is_sklearn_available()  # Which remembers what it found.
    finally:
        del sys.modules["sklearn"]
