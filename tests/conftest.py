import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """What a stage run in this process does on SIGTERM ends with the test: a worker process that inherits it may not
    end when its pool ends it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
