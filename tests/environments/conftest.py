import pytest

from cascade.environments import code
from cascade.environments.shared.memoize import Once
from cascade.environments.swe_agentless import checks
from tests.loopback import no_waiting  # noqa: F401


@pytest.fixture(autouse=True)
def _nothing_executed_yet(monkeypatch):
    """What an earlier test had executed would not be executed again."""
    monkeypatch.setattr(code, "_GRADES", Once())
    monkeypatch.setattr(checks, "_OUTCOMES", Once())
