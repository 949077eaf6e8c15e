import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST = (
    "browser/test_runs.py",
    "test_pipeline.py",
    "curation/test_shards.py",
    "distributed/test_nodes.py",
    "distributed/test_processes.py",
    "test_dvc.py",
    "test_quality.py",
)
"""Files that `make test`, which gives each file to one of its processes, begins with: started last, they would be
waited for."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # A process for each core: threads would only be in each other's way. Read where torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """What a stage run in this process does on SIGTERM ends with the test: a worker process that inherits it may not
    end when its pool ends it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
