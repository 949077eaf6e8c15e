"""The MLflow store, and the runs of a pipeline run in it.

One parent run for each pipeline run and a child run for each node, found by their tags and continued: a killed
process, a second host and a replay after an outage all write to the same runs. Only the client is used, never MLflow's
"active run", so MLFLOW_RUN_ID in the environment changes nothing.
"""

import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking.notes import NOTE, experiment_note
from cascade.utils.files import write_atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_ID = "cascade.run_id"
NODE = "cascade.node"
INPUTS = "cascade.inputs"
MADE_IN = "cascade.made_in"
"""The pipeline run in which the node's process ran. A later one that found the node up to date has a run of it too,
with the same journal."""
PARENT = "mlflow.parentRunId"
KIND = "mlflow.experimentKind"
MODEL_TRAINING = "custom_model_development"

_DEFAULTS = {
    # An unreachable server costs a node seconds, not the minutes of MLflow's own retries: the journal keeps all.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri(layout: Layout) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite file in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{layout.root.absolute()}/mlflow/mlflow.db"


def pipeline_run_id(layout: Layout) -> str:
    """CASCADE_RUN_ID where a flow set it, else one id for all commands that are run by hand in this project."""
    if run_id := os.environ.get("CASCADE_RUN_ID"):
        return run_id
    path = layout.root / ".cascade" / "run_id"
    with locked(layout):
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex[:12] + "\n")
    return path.read_text().strip()


def connect(layout: Layout) -> "MlflowClient":
    """Raises ImportError where MLflow is not installed."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Whatever it logs with a traceback it raises too, and that is said in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    uri = tracking_uri(layout)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    # SQLite's schema is made at the first connection, which two processes must not do at once.
    with locked(layout):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def is_refusal(error: Exception) -> bool:
    """Whether MLflow rejects the request, so that a retry is useless: a name, a host or a credential that is not
    allowed."""
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return 400 <= status < 500 and status not in (409, 429, 499)


def experiment(client: "MlflowClient", layout: Layout, recipe: Recipe) -> str:
    """The id of the experiment of the recipe's family, which is created with a description where there is none.

    Its kind says that models are trained in it, for pages of MLflow's that go by it; without one, MLflow infers a kind
    from what it finds.
    """
    with locked(layout):
        existing = client.get_experiment_by_name(recipe.family)
        if existing is not None:
            if KIND not in existing.tags:
                client.set_experiment_tag(existing.experiment_id, KIND, MODEL_TRAINING)
            return str(existing.experiment_id)
        local = "MLFLOW_TRACKING_URI" not in os.environ
        location = (layout.root.absolute() / "mlflow" / "artifacts").as_uri() if local else None
        tags = {NOTE: experiment_note(recipe), KIND: MODEL_TRAINING}
        return str(client.create_experiment(recipe.family, artifact_location=location, tags=tags))


def find_run(client: "MlflowClient", experiment_id: str, identity: dict[str, str]) -> "Run | None":
    """The oldest run with these tags."""
    terms = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    runs = client.search_runs([experiment_id], terms, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def find_or_create_run(
    client: "MlflowClient",
    layout: Layout,
    experiment_id: str,
    name: str,
    identity: dict[str, str],
    parent: str | None,
    start: float,
) -> "Run":
    """`start`: when the node began, in Unix seconds; a replay may be much later."""
    with locked(layout):
        if run := find_run(client, experiment_id, identity):
            return run
        tags = {**identity, **({PARENT: parent} if parent else {})}
        return client.create_run(experiment_id, start_time=int(start * 1000), tags=tags, run_name=name)


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """A lock that one process of this project holds at a time."""
    path = layout.root / ".cascade" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
