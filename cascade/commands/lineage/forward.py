"""From data forward to every checkpoint and registered model that depends on it."""

from typing import TYPE_CHECKING

from cascade.commands.lineage.graph import (
    CHECKPOINT,
    MADE,
    PARENT,
    PARENT_HASH,
    Data,
    Graph,
    data_of,
    named,
    open_graph,
)
from cascade.commands.lineage.graph import teachers_of as teachers
from cascade.commands.lineage.tree import Branch
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import CURATE, load
from cascade.tracking.publisher import DIGEST
from cascade.tracking.runs import SHORTEST_ID, node_of

if TYPE_CHECKING:
    from mlflow.entities import Run


def forward(what: str, layout: Layout) -> list[str]:
    """The tree of `what`: a source of the active recipe, a dataset's name, a path, or the beginning of a hash.

    A benchmark is listed as an evaluation, not as training data. Raises CascadeError where no run read such data.
    """
    graph = open_graph(layout)
    query = _Query(what, layout)
    derived = _derived_digests(graph, query)
    root = Branch(what)
    listed: set[str] = set()
    for run in graph.makers:
        inputs = [data for data in data_of(run) if query.is_it(data) or data.digest in derived]
        trained = [data for data in inputs if data.context == "training"]
        if trained:
            _add_descendants(graph, root, f"trained on {', '.join(d.name for d in trained)}: ", run, listed)
        elif inputs:
            root.add(f"measured on {', '.join(d.name for d in inputs)}: {named(run)}")
    if not root.branches:
        names = ", ".join(sorted({data.name for run in graph.runs.nodes for data in data_of(run)})) or "none yet"
        raise CascadeError(f"{what}: no checkpoint in MLflow was made from or measured on such data; datasets: {names}")
    return root.lines()


class _Query:
    """Matches datasets against the query."""

    def __init__(self, what: str, layout: Layout):
        self._what = what.rstrip("/")
        self._path = str((layout.root / what).resolve())
        self._paths = _paths_of_source(what, layout)

    def is_it(self, data: Data) -> bool:
        return (
            self._what in (data.name, f"source/{data.name}")
            or data.name == f"source/{self._what}"
            or self.is_hash(data.digest)
            or (data.dvc is not None and self.is_hash(data.dvc))
            or any(data.path == p or data.path.startswith(f"{p}/") for p in (self._path, *self._paths))
        )

    def is_hash(self, digest: str) -> bool:
        return len(self._what) >= SHORTEST_ID and (
            digest.startswith(self._what) or (len(digest) == DIGEST and self._what.startswith(digest))
        )


def _paths_of_source(name: str, layout: Layout) -> list[str]:
    """The files that rows of a source of the active recipe are in."""
    source = load(layout.params).curation.sources.get(name) if layout.params.exists() else None
    if source is None:
        return []
    paths = [layout.sft_data] if source.sft else []
    paths += [layout.prompts(source.domain)] if source.rl else []
    paths += [layout.benchmark(source.domain)] if source.benchmark else []
    return [str(path.resolve()) for path in paths]


def _derived_digests(graph: Graph, query: _Query) -> set[str]:
    """Digests of all files that were curated from a matching one."""
    digests: set[str] = set()
    for run in graph.runs.nodes:
        if node_of(run) == CURATE and any(query.is_it(data) for data in data_of(run)):
            digests |= {content[:DIGEST] for key, content in run.data.tags.items() if key.startswith(MADE)}
    return digests


def _add_descendants(graph: Graph, branch: Branch, role: str, run: "Run", listed: set[str]) -> None:
    """The checkpoint, its registered versions, and the checkpoints that were trained from it."""
    below = branch.add(role + named(run))
    if run.info.run_id in listed:
        below.line += "  (see above)"
        return
    listed.add(run.info.run_id)
    content = run.data.tags[CHECKPOINT]
    for version in graph.versions:
        if version.tags.get(CHECKPOINT) == content and version.tags.get("node", node_of(run)) == node_of(run):
            below.add(f"registered as {version.name} version {version.version}")
    for descendant in graph.makers:
        if descendant.info.run_id == run.info.run_id:
            continue
        if descendant.data.tags.get(PARENT_HASH) == content and descendant.data.tags.get(PARENT) == node_of(run):
            _add_descendants(graph, below, "start of ", descendant, listed)
        elif domains := [names for taught, names in teachers(descendant) if taught == content]:
            _add_descendants(graph, below, f"teacher of {domains[0]} of ", descendant, listed)
