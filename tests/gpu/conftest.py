import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The tiny models are shared with the tests of the policy.
sys.path.insert(0, str(Path(__file__).parent.parent / "policy"))


def pytest_collection_modifyitems(items):
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; there is none here"))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """As a node trains."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
