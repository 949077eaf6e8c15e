"""Links to the MLflow pages of a pipeline run."""

import os

from cascade.launch.ui_servers import mlflow_pages
from cascade.layout import Layout
from cascade.recipe import PIPELINE, Recipe
from cascade.tracking import mlflow_store
from cascade.tracking.background import warn


class MLflowLinks:
    """URLs of the pages of a run and its nodes; none, and a warning, where MLflow cannot be reached."""

    def __init__(self, recipe: Recipe, layout: Layout):
        self._base = ""
        self._runs: dict[str, str] = {}
        try:
            client = mlflow_store.connect(layout)
            experiment = mlflow_store.experiment(client, layout, recipe)
            identity = f"tags.`{mlflow_store.RUN_ID}` = '{mlflow_store.pipeline_run_id(layout)}'"
            runs = client.search_runs([experiment], identity, order_by=["attributes.start_time ASC"])
        except Exception as error:  # whatever MLflow raises: measurements never stop a run
            warn(error)
            return
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        server = uri if uri.startswith(("http://", "https://")) else mlflow_pages(layout)
        self._base = f"{server.rstrip('/')}/#/experiments/{experiment}/runs"
        self._runs = {run.data.tags[mlflow_store.NODE]: run.info.run_id for run in runs}

    def run(self) -> str | None:
        return self.node(PIPELINE)

    def node(self, name: str) -> str | None:
        """None for a node without a run in this pipeline run, because it was up to date."""
        return f"{self._base}/{self._runs[name]}" if name in self._runs else None
