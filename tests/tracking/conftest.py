import shutil

import pytest

from cascade.layout import Layout
from cascade.tracking import background, mlflow_store
from tests.evaluation.project import recipe_with_gate


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Making MLflow's schema takes seconds: once for all tests."""
    layout = Layout(tmp_path_factory.mktemp("store"))
    mlflow_store.connect(layout).search_experiments()
    return layout.root / "mlflow" / "mlflow.db"


def _project(folder, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.setattr(background, "_warned", set())
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    return Layout(folder)


@pytest.fixture
def layout(tmp_path, empty_store, monkeypatch):
    return _project(tmp_path, empty_store, monkeypatch)


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def module_layout(tmp_path_factory, empty_store, module_monkeypatch):
    """For tests that only read what their module's fixture made."""
    return _project(tmp_path_factory.mktemp("project"), empty_store, module_monkeypatch)


@pytest.fixture
def recipe():
    return recipe_with_gate()
