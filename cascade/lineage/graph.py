"""Who was made from what, as the tags and inputs of MLflow's runs say it: content hashes join them."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cascade.files import hash_directory
from cascade.layout import Layout
from cascade.recipe import CURATE
from cascade.tracking.journal import EVALUATED
from cascade.tracking.runs import Runs, node_of, open_runs, pipeline_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHECKPOINT, PARENT, PARENT_HASH = "checkpoint_hash", "parent", "parent_hash"
TEACHER = "teacher_hash/"
MADE = "made/"
SHOWN = 12
"""Characters of a hash that are shown; as many name it on the command line."""


@dataclass(frozen=True)
class Data:
    """A file that a run read: `context` is what for (training, evaluation, curation)."""

    name: str
    digest: str
    path: str
    context: str
    dvc: str | None
    """The hash under which DVC keeps it, or the directory it lies in."""


@dataclass(frozen=True)
class Graph:
    runs: Runs
    layout: Layout

    @cached_property
    def makers(self) -> "list[Run]":
        """The runs that made a checkpoint, the oldest first."""
        return [run for run in self.runs.nodes if CHECKPOINT in run.data.tags]

    @cached_property
    def versions(self) -> "list[ModelVersion]":
        """Every version of every registered model, in the order of their names and numbers."""
        names = sorted(model.name for model in self.runs.client.search_registered_models())
        found = [v for name in names for v in self.runs.client.search_model_versions(f"name = '{name}'")]
        return sorted(found, key=lambda version: (version.name, int(version.version)))

    def maker(self, content: str, node: str | None = None, beside: "Run | None" = None) -> "Run | None":
        """The run that made a checkpoint, by its content.

        A repair that found nothing has the checkpoint of its start, and the same node may be built in several pipeline
        runs: that of the node named counts most, then that of the same pipeline run as `beside`.
        """
        found = [run for run in self.makers if run.data.tags[CHECKPOINT].startswith(content)]

        def fit(run: "Run") -> tuple[bool, bool]:
            return node_of(run) == node, beside is not None and pipeline_of(run) == pipeline_of(beside)

        return max(found, key=fit, default=None)

    def of_node(self, node: str) -> "Run | None":
        """The run that made the checkpoint that lies under models/ now; else the node's newest."""
        found = [run for run in self.makers if node_of(run) == node]
        local = self.layout.checkpoint(node)
        if len(found) > 1 and local.exists() and (run := self.maker(hash_directory(local), node)):
            return run
        return found[-1] if found else None

    def curation(self, data: Data) -> "Run | None":
        """The curation that wrote a file."""
        return next(
            (
                run
                for run in self.runs.nodes
                if node_of(run) == CURATE
                and any(v.startswith(data.digest) for k, v in run.data.tags.items() if k.startswith(MADE))
            ),
            None,
        )


def open_graph(layout: Layout) -> Graph:
    """Raises CascadeError where MLflow cannot be asked."""
    return Graph(open_runs(layout), layout)


def data_of(run: "Run") -> list[Data]:
    """What the run read, in the order of contexts and names."""
    found = []
    for each in run.inputs.dataset_inputs if run.inputs else []:
        tags = {tag.key: tag.value for tag in each.tags}
        dataset = each.dataset
        found.append(
            Data(
                dataset.name,
                dataset.digest,
                dataset.source,
                tags.get("mlflow.data.context", ""),
                tags.get("dvc"),
            )
        )
    return sorted(found, key=lambda data: (data.context, data.name, data.digest))


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
    return f"{node_of(run)}  checkpoint {content[:SHOWN]}  run {pipeline_of(run)}/{node_of(run)}"
