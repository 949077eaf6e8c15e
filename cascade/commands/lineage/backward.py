"""From a registered model, a checkpoint or a metric back to every hash, recipe, parent and teacher."""

from typing import TYPE_CHECKING

from cascade.commands.lineage.graph import (
    CHECKPOINT,
    DIGITS,
    PARENT,
    PARENT_HASH,
    Data,
    Graph,
    data_of,
    evaluated,
    named,
    open_graph,
    teachers_of,
)
from cascade.commands.lineage.tree import Branch
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import BASE
from cascade.tracking.journal import metric_name
from cascade.tracking.runs import node_of, title

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


def backward(what: str, layout: Layout) -> list[str]:
    """The tree of `what`: NAME or NAME/VERSION of a registered model, a node or run, or NODE:METRIC.

    Raises CascadeError where there is no such model, run or metric, or where its inputs are not in MLflow.
    """
    graph = open_graph(layout)
    whom, colon, metric = what.partition(":")
    version = None if colon else _version(graph, whom)
    if version is not None:
        root = Branch(f"{version.name} version {version.version}{_aliases(graph, version)}")
        content = version.tags[CHECKPOINT]
        gate = next((r for r in graph.runs.nodes if r.info.run_id == version.run_id), None)
        run = graph.maker(content, version.tags.get("node"), gate)
        if run is None:
            raise CascadeError(
                f"{what}: no run in MLflow made its checkpoint {content[:DIGITS]}; "
                "ask the server that it was trained on"
            )
        root.add(f"passed the gate of run {_pipeline(graph, gate) if gate else f'{version.run_id}, which is gone'}")
        _Walk(graph).checkpoint(root, "", run)
        return root.lines()
    run = graph.named(whom)
    origin = graph.origin(run)
    if CHECKPOINT not in origin.data.tags:
        raise CascadeError(f"{what}: run {title(run)} made no checkpoint; name a training node or a registered model")
    if not colon:
        root = Branch(named(origin))
        _Walk(graph).made_from(root, origin)
        return root.lines()
    root = Branch(_measured(run, metric))
    # The metric depends on the checkpoint and on the benchmarks.
    _Walk(graph).checkpoint(root, "measured on ", origin)
    return root.lines()


def _version(graph: Graph, name: str) -> "ModelVersion | None":
    """NAME/VERSION, or of NAME the newest."""
    model_name, _, number = name.rpartition("/")
    of_name = [v for v in graph.versions if v.name == name]
    if of_name:
        return of_name[-1]
    of_name = [v for v in graph.versions if v.name == model_name]
    if not of_name:
        return None
    version = next((v for v in of_name if str(v.version) == number), None)
    if version is None:
        numbers = ", ".join(str(v.version) for v in of_name)
        raise CascadeError(f"{name}: {model_name} has no version {number}; it has {numbers}")
    return version


def _aliases(graph: Graph, version: "ModelVersion") -> str:
    """The aliases that point to it."""
    aliases = graph.runs.client.get_registered_model(version.name).aliases
    names = sorted(alias for alias, number in aliases.items() if str(number) == str(version.version))
    return f" ({', '.join(names)})" if names else ""


def _measured(run: "Run", metric: str) -> str:
    values = run.data.metrics
    if (key := metric_name(metric)) not in values:
        names = ", ".join(sorted(values)[:8])
        raise CascadeError(f"{node_of(run)}:{metric}: the run has no such metric; it has {names or 'none'} …")
    return f"{metric} = {values[key]:.6g}"


def _pipeline(graph: Graph, run: "Run") -> str:
    """A run's pipeline, and its recipe, seed and code."""
    pipeline_run = graph.runs.pipeline(run)
    tags = pipeline_run.data.tags if pipeline_run is not None else {}
    facts = [f"{key} {tags[tag]}" for key, tag in _TOLD.items() if tag in tags]
    return ", ".join([title(run), *facts])


_TOLD = {"recipe": "recipe", "recipe hash": "recipe_hash", "seed": "seed", "code": "git_revision"}


class _Walk:
    """Adds each checkpoint's origin to the tree once; repeated ones refer to it."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._listed: set[str] = set()

    def checkpoint(self, branch: Branch, role: str, run: "Run") -> None:
        below = branch.add(role + named(run))
        if run.info.run_id in self._listed:
            below.line += "  (see above)"
            return
        self.made_from(below, run)

    def made_from(self, branch: Branch, run: "Run") -> None:
        self._listed.add(run.info.run_id)
        branch.add(f"made by run {_pipeline(self._graph, run)}; inputs {run.data.tags.get('inputs_hash', '')[:DIGITS]}")
        for data in data_of(run):
            if data.context != "evaluation":
                self._data(branch, data)
        # An evaluation of another checkpoint is left out.
        if evaluated(run) == run.data.tags[CHECKPOINT]:
            self._benchmarks(branch, [data for data in data_of(run) if data.context == "evaluation"])
        for content, domains in teachers_of(run):
            self._origin(branch, f"teacher of {domains}: ", content, None, run)
        if PARENT_HASH in run.data.tags:
            self._origin(branch, "starts from ", run.data.tags[PARENT_HASH], run.data.tags.get(PARENT), run)

    def _origin(self, branch: Branch, role: str, content: str, node: str | None, successor: "Run") -> None:
        origin_run = None if node == BASE else self._graph.maker(content, node, successor)
        if origin_run is not None:
            self.checkpoint(branch, role, origin_run)
        elif node == BASE:
            branch.add(f"{role}{BASE}  checkpoint {content[:DIGITS]}")
        else:
            branch.add(f"{role}{node or 'a checkpoint'}  checkpoint {content[:DIGITS]}  (its run is not in MLflow)")

    def _benchmarks(self, branch: Branch, benchmarks: list[Data]) -> None:
        """Most checkpoints are evaluated on the same benchmarks: each is listed once."""
        new = [data for data in benchmarks if data.digest not in self._listed]
        for data in new:
            self._listed.add(data.digest)
            self._data(branch, data)
        if len(new) < len(benchmarks):
            branch.add(f"evaluated on {len(benchmarks) - len(new)} benchmarks (see above)")

    def _data(self, branch: Branch, data: Data) -> None:
        dvc_hash = f"  dvc {data.dvc}" if data.dvc else ""
        below = branch.add(f"{data.context} data {data.name}  sha256 {data.digest[:DIGITS]}{dvc_hash}")
        curation = self._graph.curation(data)
        if curation is None or data.context == "curation":
            return
        repeated = curation.info.run_id in self._listed
        below.line += f"  curated by run {title(curation)}" + ("  (see above)" if repeated else "")
        if not repeated:
            self._listed.add(curation.info.run_id)
            for source in data_of(curation):
                self._data(below, source)
