"""The graph of a recipe: its nodes, the parents of each, and the evaluations it waits for."""

from typing import Any

from pydantic import Field

from cascade.errors import RecipeError
from cascade.recipe.names import Name
from cascade.recipe.sections import (
    DistillNode,
    GateNode,
    Node,
    OffPolicyNode,
    QADNode,
    QuantizeNode,
    RegressionCheck,
    RepairNode,
    RLNode,
    SFTNode,
    SolveNode,
    TaughtNode,
    TeachersNode,
)
from cascade.utils.config import Section

BASE = "base"
"""The `init` of the first node: the model that the recipe's `base` names."""

CURATE = "curate"
"""The stage that builds data/ before any node."""

PIPELINE = "pipeline"
"""The parent run of the nodes' runs."""

REPORT = "report"
"""The journal of the parent run."""

RESERVED = {BASE: "the base model", CURATE: "curation", PIPELINE: "the whole run", REPORT: "the report"}
"""Names that no node may have, and what they stand for."""


class Graph(Section):
    """The nodes, in one section for each kind, by name; names are unique over all sections."""

    name: Name
    """Of the recipe."""
    sft: dict[str, SFTNode] = Field(default_factory=dict)
    rl: dict[str, RLNode] = Field(default_factory=dict)
    teachers: dict[str, TeachersNode] = Field(default_factory=dict)
    off_policy: dict[str, OffPolicyNode] = Field(default_factory=dict)
    distill: dict[str, DistillNode] = Field(default_factory=dict)
    repair: dict[str, RepairNode] = Field(default_factory=dict)
    quantize: dict[str, QuantizeNode] = Field(default_factory=dict)
    qad: dict[str, QADNode] = Field(default_factory=dict)
    gate: dict[str, GateNode] = Field(default_factory=dict)
    solve: dict[str, SolveNode] = Field(default_factory=dict)

    @property
    def training(self) -> dict[str, Node]:
        """Every node that makes a checkpoint, in the order in which they can run."""
        return {name: node for name, node in self.ordered().items() if isinstance(node, Node)}

    def sections(self) -> dict[str, dict[str, Any]]:
        kinds = ("sft", "rl", "teachers", "off_policy", "distill", "repair", "quantize", "qad", "gate", "solve")
        return {kind: getattr(self, kind) for kind in kinds}

    def kind(self, name: str) -> str:
        """The section of a node. Raises RecipeError naming the known nodes."""
        for kind, section in self.sections().items():
            if name in section:
                return kind
        known = ", ".join(n for section in self.sections().values() for n in section)
        raise RecipeError(f"no node {name!r} in recipe {self.name}; nodes: {known}")

    def node(self, name: str) -> Section:
        """Raises RecipeError naming the known nodes."""
        return self.sections()[self.kind(name)][name]

    def parents(self, name: str) -> list[str]:
        """Nodes whose results this one reads; `base` is not a node."""
        node = self.node(name)
        if isinstance(node, TeachersNode):
            parents = list(node.candidates)
        elif isinstance(node, GateNode):
            parents = [node.candidate, *node.against]
        elif isinstance(node, TaughtNode):
            parents = [node.init, node.teachers]
        elif isinstance(node, RepairNode | QADNode):
            parents = [node.init, *node.against]
        elif isinstance(node, SolveNode):
            parents = node.checkpoints
        else:
            assert isinstance(node, Node)
            parents = [node.init]
        return [parent for parent in parents if parent != BASE]

    def evaluated_in(self, round: int) -> list[str]:
        """The training nodes of a round: whoever reads the round waits for their evaluations."""
        return [name for name, node in self.makers().items() if node.round == round]

    def awaited(self, name: str) -> list[str]:
        """The nodes whose evaluations this one waits for: all of the round that it reads, where it reads one."""
        node = self.node(name)
        if isinstance(node, TeachersNode | GateNode):
            return self.evaluated_in(node.round)
        return self.evaluated_in(node.reads_round) if isinstance(node, RegressionCheck) else []

    def teachers_chosen_by(self, name: str) -> str | None:
        """The node whose decision names this one's teachers; None where it has none."""
        node = self.node(name)
        if isinstance(node, TaughtNode):
            return node.teachers
        return name if isinstance(node, RegressionCheck) else None

    def ordered(self) -> dict[str, Section]:
        """All nodes, parents first. Raises RecipeError naming a cycle."""
        order: dict[str, Section] = {}
        path: list[str] = []

        def visit(name: str) -> None:
            if name in order:
                return
            if name in path:
                raise RecipeError(
                    f"{self.kind(name)}.{name}: the nodes form a cycle "
                    f"({' → '.join([*path[path.index(name) :], name])}); let one of them start elsewhere"
                )
            path.append(name)
            for dependency in (*self.parents(name), *self.awaited(name)):
                visit(dependency)
            path.pop()
            order[name] = self.node(name)

        for section in self.sections().values():
            for name in section:
                visit(name)
        return order

    def makers(self) -> dict[str, Node]:
        """The nodes that make a checkpoint, in the recipe's order; `training` has them in topological order."""
        return {
            **self.sft,
            **self.rl,
            **self.off_policy,
            **self.distill,
            **self.repair,
            **self.quantize,
            **self.qad,
        }

    @property
    def checks(self) -> dict[str, RepairNode | QADNode]:
        """The nodes that begin with a regression check."""
        return {**self.repair, **self.qad}

    def ancestors(self, name: str) -> set[str]:
        return set().union(*({p} | self.ancestors(p) for p in self.parents(name))) if name != BASE else set()

    def common_start(self, names: list[str]) -> str:
        """The last node, or `base`, from whose checkpoint all of these nodes' checkpoints descend by training; a node
        descends from itself."""
        lines = [self._line(name) for name in names]
        return next(name for name in lines[0] if all(name in line for line in lines[1:]))

    def _line(self, name: str) -> list[str]:
        """The node, the `init` it was trained from, and so on to `base`."""
        line = [name]
        while line[-1] != BASE:
            line.append(self.makers()[line[-1]].init)
        return line
