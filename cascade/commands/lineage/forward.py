"""From data forward to every checkpoint and registered model that it touched."""

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

    A benchmark touches a model only by measuring it, which is said. Raises CascadeError where no run read such data.
    """
    graph = open_graph(layout)
    wanted = _Wanted(what, layout)
    made = _made_of(graph, wanted)
    root = Branch(what)
    told: set[str] = set()
    for run in graph.makers:
        read = [data for data in data_of(run) if wanted.is_it(data) or data.digest in made]
        trained = [data for data in read if data.context == "training"]
        if trained:
            _touched(graph, root, f"trained on {', '.join(d.name for d in trained)}: ", run, told)
        elif read:
            root.add(f"measured on {', '.join(d.name for d in read)}: {named(run)}")
    if not root.branches:
        known = ", ".join(sorted({data.name for run in graph.runs.nodes for data in data_of(run)})) or "none yet"
        raise CascadeError(f"{what}: no checkpoint in MLflow was made from or measured on such data; datasets: {known}")
    return root.lines()


class _Wanted:
    """Whether a dataset is the one that was asked for."""

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
    found = [layout.sft_data] if source.sft else []
    found += [layout.prompts(source.domain)] if source.rl else []
    found += [layout.benchmark(source.domain)] if source.benchmark else []
    return [str(path.resolve()) for path in found]


def _made_of(graph: Graph, wanted: _Wanted) -> set[str]:
    """Digests of all that was curated from a file that was asked for."""
    found: set[str] = set()
    for run in graph.runs.nodes:
        if node_of(run) == CURATE and any(wanted.is_it(data) for data in data_of(run)):
            found |= {content[:DIGEST] for key, content in run.data.tags.items() if key.startswith(MADE)}
    return found


def _touched(graph: Graph, branch: Branch, role: str, run: "Run", told: set[str]) -> None:
    """The checkpoint, its registered versions, and all that was made from it."""
    below = branch.add(role + named(run))
    if run.info.run_id in told:
        below.line += "  (see above)"
        return
    told.add(run.info.run_id)
    content = run.data.tags[CHECKPOINT]
    for version in graph.versions:
        if version.tags.get(CHECKPOINT) == content and version.tags.get("node", node_of(run)) == node_of(run):
            below.add(f"registered as {version.name} version {version.version}")
    for other in graph.makers:
        if other.info.run_id == run.info.run_id:
            continue
        if other.data.tags.get(PARENT_HASH) == content and other.data.tags.get(PARENT) == node_of(run):
            _touched(graph, below, "start of ", other, told)
        elif domains := [names for taught, names in teachers(other) if taught == content]:
            _touched(graph, below, f"teacher of {domains[0]} of ", other, told)
