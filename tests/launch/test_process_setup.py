"""The imports of a node's process, in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from cascade.launch.process_setup import thread_settings
from cascade.recipe import load

ROOT = Path(__file__).parents[2]

PROGRAM = """
import gc, sys
from cascade.launch import process_setup
with process_setup.importing_engine():
    import {module}
print(*({{"sklearn", "scipy", "pandas", "mlflow"}} & sys.modules.keys()))
assert "torch" in sys.modules
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
"""


@pytest.mark.parametrize("module", ["cascade.training.on_policy", "cascade.evaluation.checkpoint_runner"])
def test_an_engine_is_imported_without_what_it_does_not_use(module):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_an_import_that_fails_leaves_the_collector_at_work():
    program = """
import gc
from cascade.launch import process_setup
try:
    with process_setup.importing_engine():
        import no_such_module
except ImportError:
    assert gc.isenabled()
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_waiting_threads_sleep_soon_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(ROOT / "params.yaml")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert int(thread_settings(recipe)["GOMP_SPINCOUNT"]) < 10_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "infinite")
    assert thread_settings(recipe)["GOMP_SPINCOUNT"] == "infinite"
