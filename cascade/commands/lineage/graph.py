"""The graph of checkpoints and data, from tags and inputs of MLflow's runs, joined by content hashes."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cascade.layout import Layout
from cascade.recipe import CURATE
from cascade.tracking.journal import EVALUATED
from cascade.tracking.mlflow_store import MADE_IN
from cascade.tracking.runs import Runs, node_of, open_runs, pipeline_of
from cascade.utils.files import hash_directory

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHECKPOINT, PARENT, PARENT_HASH = "checkpoint_hash", "parent", "parent_hash"
TEACHER = "teacher_hash/"
MADE = "made/"
DIGITS = 12
"""Characters of a hash that are shown; as many name it on the command line."""


@dataclass(frozen=True)
class Data:
    """A file that a run read; `context` is its purpose (training, evaluation, curation)."""

    name: str
    digest: str
    path: str
    context: str
    dvc: str | None
    """DVC's hash of the file or of its directory."""


@dataclass(frozen=True)
class Graph:
    runs: Runs
    layout: Layout

    @cached_property
    def makers(self) -> "list[Run]":
        """The runs that made a checkpoint, the oldest first: not those that found it up to date, unless the one that
        made it is not in MLflow."""
        of: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs.nodes:
            if CHECKPOINT in run.data.tags:
                of.setdefault((node_of(run), run.data.tags[CHECKPOINT]), []).append(run)
        origin_ids = {run.info.run_id for runs in of.values() for run in list(filter(_made_here, runs)) or runs[:1]}
        return [run for run in self.runs.nodes if run.info.run_id in origin_ids]

    @cached_property
    def versions(self) -> "list[ModelVersion]":
        """Every version of every registered model, in the order of their names and numbers."""
        names = sorted(model.name for model in self.runs.client.search_registered_models())
        versions = [v for name in names for v in self.runs.client.search_model_versions(f"name = '{name}'")]
        return sorted(versions, key=lambda version: (version.name, int(version.version)))

    def maker(self, content: str, node: str | None = None, beside: "Run | None" = None) -> "Run | None":
        """The run that made a checkpoint, by its content.

        A repair that found nothing has the checkpoint of its start, and the same node may be built in several pipeline
        runs: that of the node named counts most, then that of the same pipeline run as `beside`.
        """
        candidates = [run for run in self.makers if run.data.tags[CHECKPOINT].startswith(content)]

        def fit(run: "Run") -> tuple[bool, bool]:
            return node_of(run) == node, beside is not None and pipeline_of(run) == pipeline_of(beside)

        return max(candidates, key=fit, default=None)

    def named(self, name: str) -> "Run":
        """As `Runs.named`; but of a node that is named alone, a run of the checkpoint that lies under models/ now,
        where there is one. Raises CascadeError naming what there is."""
        found = [run for run in self.runs.nodes if node_of(run) == name]
        local = self.layout.checkpoint(name)
        if len(found) > 1 and local.exists():
            content = hash_directory(local)
            if of_it := [run for run in found if content in (run.data.tags.get(CHECKPOINT), evaluated(run))]:
                return ([run for run in of_it if pipeline_of(run) == self.runs.present] or of_it)[-1]
        return self.runs.named(name)

    def origin(self, run: "Run") -> "Run":
        """The run that made the checkpoint that `run` is of: itself, unless its pipeline run found it up to date. That
        run has the checkpoint's settings and inputs."""
        content = run.data.tags.get(CHECKPOINT) or evaluated(run)
        maker_run = self.maker(content, node_of(run), run) if content else None
        return maker_run if maker_run is not None and node_of(maker_run) == node_of(run) else run

    def curation(self, data: Data) -> "Run | None":
        """The curation that wrote a file."""
        wrote = [
            run
            for run in self.runs.nodes
            if node_of(run) == CURATE
            and any(v.startswith(data.digest) for k, v in run.data.tags.items() if k.startswith(MADE))
        ]
        return max(wrote, key=_made_here, default=None)


def _made_here(run: "Run") -> bool:
    """Whether the node was built in the pipeline run that `run` is part of."""
    return bool(run.data.tags.get(MADE_IN) == pipeline_of(run))


def open_graph(layout: Layout) -> Graph:
    """Raises CascadeError where MLflow cannot be asked."""
    return Graph(open_runs(layout), layout)


def data_of(run: "Run") -> list[Data]:
    """The data that the run read, in the order of contexts and names."""
    files = []
    for each in run.inputs.dataset_inputs if run.inputs else []:
        tags = {tag.key: tag.value for tag in each.tags}
        dataset = each.dataset
        files.append(
            Data(
                dataset.name,
                dataset.digest,
                dataset.source,
                tags.get("mlflow.data.context", ""),
                tags.get("dvc"),
            )
        )
    return sorted(files, key=lambda data: (data.context, data.name, data.digest))


def teachers_of(run: "Run") -> list[tuple[str, str]]:
    """(hash, its domains) of each distinct teacher, by the first of its domains."""
    domains: dict[str, list[str]] = {}
    for key, content in sorted(run.data.tags.items()):
        if key.startswith(TEACHER):
            domains.setdefault(content, []).append(key.removeprefix(TEACHER))
    return [(content, ", ".join(names)) for content, names in domains.items()]


def evaluated(run: "Run") -> str | None:
    """The hash of the checkpoint that the run's evaluation is of."""
    return run.data.tags.get(EVALUATED)


def named(run: "Run") -> str:
    """A checkpoint's run in one line."""
    content = run.data.tags.get(CHECKPOINT, "")
    return f"{node_of(run)}  checkpoint {content[:DIGITS]}  run {pipeline_of(run)}/{node_of(run)}"
