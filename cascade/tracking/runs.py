"""Read runs from MLflow: those of nodes and pipelines, and the one that a user names."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import PIPELINE
from cascade.tracking import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SHORTEST_ID = 6
"""Shortest prefix of a run's id, or of a hash, that names it."""


@dataclass(frozen=True)
class Runs:
    """Every run in the tracking store that Cascade wrote, the oldest first. Runs of the same process of a node (later
    pipeline runs for which it was up to date) are in the order of their pipeline runs."""

    client: "MlflowClient"
    found: "list[Run]"
    present: str
    """The pipeline run of this project; a node's name alone means its run in there."""

    @property
    def nodes(self) -> "list[Run]":
        """The runs of nodes, without those of pipelines."""
        return [run for run in self.found if node_of(run) != PIPELINE]

    def children(self, pipeline: "Run") -> "list[Run]":
        """The newest run of each node of a pipeline run, in the order in which the nodes began."""
        of_node = {node_of(run): run for run in self.nodes if pipeline_of(run) == pipeline_of(pipeline)}
        return sorted(of_node.values(), key=lambda run: (run.info.start_time, node_of(run)))

    def pipeline(self, run: "Run") -> "Run | None":
        """The pipeline run that a node's run is part of."""
        return next((r for r in self.found if node_of(r) == PIPELINE and pipeline_of(r) == pipeline_of(run)), None)

    def named(self, name: str) -> "Run":
        """A run by its id (or the beginning of it), its name, its pipeline's id, NODE, or PIPELINE/NODE.

        Of several runs of a node, that of this project's pipeline run, else the newest. Raises CascadeError naming the
        known runs.
        """
        pipeline_name, _, node = name.rpartition("/")
        if pipeline_name and (pipelines := [r for r in self.found if _is_pipeline(r, pipeline_name)]):
            inside = [run for run in self.children(pipelines[-1]) if node_of(run) == node]
            if inside:
                return inside[0]
        if by_id := [r for r in self.found if len(name) >= SHORTEST_ID and r.info.run_id.startswith(name)]:
            return by_id[-1]
        if pipelines := [run for run in self.found if _is_pipeline(run, name)]:
            return pipelines[-1]
        of_node = [run for run in self.nodes if node_of(run) == name]
        if of_node:
            return ([run for run in of_node if pipeline_of(run) == self.present] or of_node)[-1]
        titles = ", ".join(sorted({title(run) for run in self.found if node_of(run) == PIPELINE})) or "none yet"
        nodes = ", ".join(dict.fromkeys(node_of(run) for run in self.nodes)) or "none yet"
        raise CascadeError(f"{name}: no such run in MLflow; pipeline runs: {titles}; nodes: {nodes}")

    def artifact(self, run: "Run", path: str) -> str | None:
        """The text of a file of the run; None where it has no such file."""
        folder = path.rpartition("/")[0]
        if path not in {file.path for file in self.client.list_artifacts(run.info.run_id, folder or None)}:
            return None
        with TemporaryDirectory() as scratch:
            local = self.client.download_artifacts(run.info.run_id, path, scratch)
            return Path(local).read_text(encoding="utf-8")


def open_runs(layout: Layout) -> Runs:
    """Raises CascadeError where MLflow is not installed or does not answer."""
    try:
        client = mlflow_store.connect(layout)
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = search(client, experiments)
        start_times = {pipeline_of(run): run.info.start_time for run in runs if node_of(run) == PIPELINE}
        runs.sort(key=lambda run: (run.info.start_time, start_times.get(pipeline_of(run), 0)))
        return Runs(client, runs, mlflow_store.pipeline_run_id(layout))
    except ImportError:
        raise CascadeError("MLflow is not installed here; `pip install mlflow`") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CascadeError(
            f"MLflow at {mlflow_store.tracking_uri(layout)}: {reason}; start its server, or correct MLFLOW_TRACKING_URI"
        ) from None


def search(client: "MlflowClient", experiments: list[str], condition: str = "") -> "list[Run]":
    """Every run of these experiments that has the tag of a node, and meets the condition, the oldest first."""
    terms = f"tags.`{mlflow_store.NODE}` LIKE '%'" + (f" AND {condition}" if condition else "")
    runs: list[Run] = []
    token = None
    while experiments:
        page = client.search_runs(
            experiments, terms, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            break
    return runs


def node_of(run: "Run") -> str:
    return str(run.data.tags[mlflow_store.NODE])


def pipeline_of(run: "Run") -> str:
    return str(run.data.tags.get(mlflow_store.RUN_ID, ""))


def title(run: "Run") -> str:
    """The run's name for users: PIPELINE/NODE, or the name of the pipeline run."""
    return str(run.info.run_name) if node_of(run) == PIPELINE else f"{pipeline_of(run)}/{node_of(run)}"


def _is_pipeline(run: "Run", name: str) -> bool:
    return node_of(run) == PIPELINE and name in (pipeline_of(run), run.info.run_name)
