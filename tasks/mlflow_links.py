"""Where in MLflow's pages the runs of a pipeline run are."""

import os

from cascade.launch.ui_servers import mlflow_pages
from cascade.layout import Layout
from cascade.recipe import PIPELINE, Recipe
from cascade.tracking import mlflow_store
from cascade.tracking.background import warn


class MLflowLinks:
    """Addresses of the pages of a run and its nodes. Where MLflow cannot be asked, that is said, and there are none."""

    def __init__(self, recipe: Recipe, layout: Layout):
        self._base = ""
        self._runs: dict[str, str] = {}
        try:
            client = mlflow_store.connect(layout)
            experiment = mlflow_store.experiment(client, layout, recipe)
            identity = f"tags.`{mlflow_store.RUN_ID}` = '{mlflow_store.pipeline_run_id(layout)}'"
            found = client.search_runs([experiment], identity, order_by=["attributes.start_time ASC"])
        except Exception as error:  # whatever MLflow raises: measurements never stop a run
            warn(error)
            return
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        server = uri if uri.startswith(("http://", "https://")) else mlflow_pages(layout)
        self._base = f"{server.rstrip('/')}/#/experiments/{experiment}/runs"
        self._runs = {run.data.tags[mlflow_store.NODE]: run.info.run_id for run in found}

    def run(self) -> str | None:
        return self.node(PIPELINE)

    def node(self, name: str) -> str | None:
        """None for a node that was not measured in this run: it was up to date."""
        return f"{self._base}/{self._runs[name]}" if name in self._runs else None
