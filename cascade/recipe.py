"""The recipe: the one definition of the graph. `params.yaml` is the active one.

Nodes stand in sections by kind (`sft`, `rl`, `teachers`, `distill`, `repair`, `gate`), each under its name; names are
unique over all sections. A node names what it starts from (`init`), so the graph is in the recipe and
nowhere else. Errors name the key and the remedy, in one line.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from cascade import environments
from cascade.errors import RecipeError
from cascade.files import hash_file
from cascade.places import LOCAL_POOL, Placement, Verification
from cascade.schema import (
    PLACEMENT,
    Comparison,
    Count,
    Curation,
    Decontamination,
    Difficulty,
    Distillation,
    DistillNode,
    Evaluation,
    GateNode,
    Judges,
    Name,
    Node,
    OnPolicyNode,
    Optimizer,
    Parallel,
    RepairNode,
    RLNode,
    Rollout,
    Section,
    SFTNode,
    Source,
    TeacherMemory,
    TeachersNode,
)

__all__ = [
    "BASE",
    "CURATE",
    "LOCAL_POOL",
    "PIPELINE",
    "PLACEMENT",
    "REPORT",
    "Comparison",
    "Curation",
    "Decontamination",
    "Difficulty",
    "DistillNode",
    "Distillation",
    "Evaluation",
    "GateNode",
    "Judges",
    "Node",
    "OnPolicyNode",
    "Optimizer",
    "Parallel",
    "Placement",
    "RLNode",
    "Recipe",
    "RepairNode",
    "Rollout",
    "SFTNode",
    "Section",
    "Source",
    "TeacherMemory",
    "TeachersNode",
    "Verification",
    "load",
    "recipe_hash",
]

BASE = "base"
"""What the first node starts from: the model that the recipe's `base` names."""

CURATE = "curate"
"""The stage that builds data/ before any node."""

PIPELINE = "pipeline"
"""The run that the nodes' runs belong to."""

REPORT = "report"
"""The journal whose entries belong to that run."""

RESERVED = {BASE: "the base model", CURATE: "curation", PIPELINE: "the whole run", REPORT: "the report"}
"""Names of files and runs beside those of the nodes, and whose they are."""


class Recipe(Section):
    name: Name
    family: Name
    """Runs of one family share history."""
    seed: int = 0
    threads: Count = 2
    """CPU threads; results are reproducible for a given number."""
    base: str = "models/base"
    """Directory of the base model."""
    pools: dict[str, Placement] = Field(default_factory=dict)
    """Node → where it runs; without an entry, where the flow runs. Not part of the node: it changes nothing in what
    the node makes but rounding."""
    judges: Judges = Judges()
    verification: Verification | None = None
    """Where responses are verified; like `pools` no part of any node."""
    curation: Curation
    sft: dict[str, SFTNode]
    rl: dict[str, RLNode]
    teachers: dict[str, TeachersNode]
    distill: dict[str, DistillNode]
    repair: dict[str, RepairNode]
    evaluation: Evaluation
    gate: dict[str, GateNode]

    @property
    def judging_threads(self) -> int:
        """Threads that judge responses: one that waits for the server of a judge or of a source, or for a verifier on
        another machine, takes no CPU."""
        asked = max(self.judges.concurrency, self.verification.workers if self.verification else 0)
        if any(source.gym_url for source in self.curation.sources.values()):
            from cascade.environments.gym_server import CONCURRENCY  # brings httpx, and few recipes have a server

            asked = max(asked, CONCURRENCY)
        return max(self.threads, asked)

    @property
    def judged_here(self) -> bool:
        """Whether rules of the node's own process judge every response, and no server or other machine is asked."""
        served = any(source.gym_url for source in self.curation.sources.values())
        return not (self.judges.named or self.verification or served)

    @property
    def training(self) -> dict[str, Node]:
        """Every node that makes a checkpoint, in the order in which they can run."""
        return {name: node for name, node in self.ordered().items() if isinstance(node, Node)}

    @property
    def domains(self) -> list[str]:
        """Every domain with a benchmark, in the order of the sources."""
        return list(dict.fromkeys(s.domain for s in self.curation.sources.values() if s.benchmark))

    def sections(self) -> dict[str, dict[str, Any]]:
        return {k: getattr(self, k) for k in ("sft", "rl", "teachers", "distill", "repair", "gate")}

    def kind(self, name: str) -> str:
        """The section a node stands in. Raises RecipeError naming the known nodes."""
        for kind, section in self.sections().items():
            if name in section:
                return kind
        known = ", ".join(n for section in self.sections().values() for n in section)
        raise RecipeError(f"no node {name!r} in recipe {self.name}; nodes: {known}")

    def node(self, name: str) -> Section:
        """Raises RecipeError naming the known nodes."""
        return self.sections()[self.kind(name)][name]

    def place(self, name: str) -> Placement:
        return self.pools.get(name, Placement())

    def longest_rollout(self, node: OnPolicyNode) -> int:
        """Tokens that it may have beyond its prompt; of episodes, as far as the recipe tells of them, in all."""
        sources = [s for s in self.curation.sources.values() if s.domain in node.mix and s.rl]
        there = [environments.get(s.rows_name) for s in sources if s.rows_name in environments.names()]
        episodes = any(isinstance(environment, environments.EpisodeEnvironment) for environment in there)
        return node.rollout.max_context if episodes else node.rollout.max_new_tokens

    def parents(self, name: str) -> list[str]:
        """Nodes whose results this one reads; `base` is not a node."""
        node = self.node(name)
        if isinstance(node, TeachersNode):
            found = list(node.candidates)
        elif isinstance(node, GateNode):
            found = [node.candidate, *node.against]
        elif isinstance(node, DistillNode):
            found = [node.init, node.teachers]
        elif isinstance(node, RepairNode):
            found = [node.init, *node.against]
        else:
            assert isinstance(node, Node)
            found = [node.init]
        return [parent for parent in found if parent != BASE]

    def evaluated_in(self, round: int) -> list[str]:
        """The training nodes of a round: whoever reads the round waits for their evaluations."""
        return [name for name, node in self._makers().items() if node.round == round]

    def awaited(self, name: str) -> list[str]:
        """The nodes whose evaluations this one waits for: all those of the round that it reads, if it reads one."""
        node = self.node(name)
        if isinstance(node, TeachersNode | GateNode):
            return self.evaluated_in(node.round)
        return self.evaluated_in(node.reads_round) if isinstance(node, RepairNode) else []

    def teachers_chosen_by(self, name: str) -> str | None:
        """The node whose decision names this one's teachers; None where it has none."""
        node = self.node(name)
        if isinstance(node, DistillNode):
            return node.teachers
        return name if isinstance(node, RepairNode) else None

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
            for needed in (*self.parents(name), *self.awaited(name)):
                visit(needed)
            path.pop()
            order[name] = self.node(name)

        for section in self.sections().values():
            for name in section:
                visit(name)
        return order

    @model_validator(mode="after")
    def _graph(self) -> "Recipe":
        names = [name for section in self.sections().values() for name in section]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"{self.kind(name)}.{name}: a node name must be unique over all sections")
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                raise RecipeError(
                    f"{self.kind(name)}.{name}: not a node name; it names files and stages, so lower-case letters, "
                    "digits, _ and - alone, a letter first"
                )
            if name in RESERVED:
                raise RecipeError(f"{self.kind(name)}.{name}: the name stands for {RESERVED[name]}; choose another")
        for kind, section in self.sections().items():
            for name, node in section.items():
                self._check_references(f"{kind}.{name}", node)
        for name in self.pools:
            if name not in names:
                raise RecipeError(f"pools.{name}: there is no such node; have {', '.join(names)}")
        # Rounds first: one that is wrong makes a cycle of nodes that wait for each other's evaluations.
        for kind, section in self.sections().items():
            for name, node in section.items():
                self._check_round(f"{kind}.{name}", node)
        self.ordered()
        for name, node in self.distill.items():
            candidates = self.teachers[node.teachers].candidates
            self._check_teachers(f"distill.{name}", node, "teachers", f" of {node.teachers}", candidates)
        for name, repair in self.repair.items():
            self._check_teachers(f"repair.{name}", repair, "against", "", repair.against)
            if missing := [domain for domain in self.domains if domain not in repair.mix]:
                raise RecipeError(
                    f"repair.{name}.mix: no share for {missing[0]}; a repair trains on every domain with a benchmark, "
                    "so that it breaks none"
                )
        return self

    def _check_references(self, key: str, node: Any) -> None:
        makers = list(self._makers())
        # The base model has no evaluation that a repair could check.
        starts = makers if isinstance(node, RepairNode) else [BASE, *makers]
        references = {
            "init": ([getattr(node, "init", None)], starts),
            "teachers": ([getattr(node, "teachers", None)], list(self.teachers)),
            "candidates": (getattr(node, "candidates", []), makers),
            "against": (getattr(node, "against", []), makers),
            "candidate": ([getattr(node, "candidate", None)], makers),
        }
        for field, (values, known) in references.items():
            for value in values:
                if value is not None and value not in known:
                    raise RecipeError(f"{key}.{field}: no such node {value!r}; have {', '.join(known) or 'none'}")
        sources = self.curation.sources.values()
        for domain in getattr(node, "mix", {}):
            if not any(source.rl for source in sources if source.domain == domain):
                raise RecipeError(f"{key}.mix.{domain}: no source in curation.sources gives RL prompts (rl) of it")
        if isinstance(node, SFTNode) and not any(source.sft for source in sources):
            raise RecipeError(f"{key}: no source in curation.sources gives rows for SFT (sft)")
        if isinstance(node, TeachersNode):
            for domain, allowed in node.domains.items():
                if domain not in self.domains:
                    raise RecipeError(f"{key}.domains.{domain}: no source in curation.sources has a benchmark of it")
                for candidate in allowed:
                    if candidate not in node.candidates:
                        raise RecipeError(f"{key}.domains.{domain}: {candidate!r} is not among the candidates")

    def _check_teachers(self, key: str, node: Distillation, field: str, of: str, candidates: list[str]) -> None:
        upstream = self._ancestors(node.init) | {node.init}
        for candidate in candidates:
            if candidate not in upstream and not (self._ancestors(candidate) | {candidate}) & upstream & set(self.sft):
                raise RecipeError(
                    f"{key}.{field}: candidate {candidate!r}{of} is not upstream of "
                    f"{node.init!r} and has no SFT node in common with it; leave it out"
                )
        for domain in node.mix:
            if domain not in self.domains:
                raise RecipeError(
                    f"{key}.mix.{domain}: without a benchmark of it no teacher can be chosen; give a source "
                    "of this domain a benchmark"
                )

    def _check_round(self, key: str, node: Any) -> None:
        """DVC's stages must be ordered as the nodes are: what a round's readers wait for cannot come after them."""
        reads = "reads_round" if isinstance(node, RepairNode) else "round"
        last = getattr(node, reads)
        makers = self._makers()
        for field, names in {
            "init": [getattr(node, "init", BASE)],
            "candidates": getattr(node, "candidates", []),
            "against": getattr(node, "against", []),
            "candidate": [getattr(node, "candidate", BASE)],
        }.items():
            for name in names:
                if name != BASE and last < (earliest := makers[name].round):
                    raise RecipeError(f"{key}.{reads}: {last}, but its {field} {name!r} is of round {earliest}")
        if isinstance(node, DistillNode) and node.round != self.teachers[node.teachers].round + 1:
            raise RecipeError(
                f"{key}.round: {node.round}; a distillation opens the round after its teachers', "
                f"{self.teachers[node.teachers].round + 1}"
            )
        if isinstance(node, RepairNode) and node.round != last + 1:
            raise RecipeError(f"{key}.round: {node.round}; a repair opens the round after the one it reads, {last + 1}")
        opened = {1, *(opener.round for opener in (*self.distill.values(), *self.repair.values()))}
        for field in dict.fromkeys((reads, "round")):
            if (round := getattr(node, field)) not in opened:
                raise RecipeError(f"{key}.{field}: {round}, but no distillation or repair opens that round")

    def _makers(self) -> dict[str, Node]:
        """The nodes that make a checkpoint, as the recipe has them: `training` puts them in order."""
        return {**self.sft, **self.rl, **self.distill, **self.repair}

    def _ancestors(self, name: str) -> set[str]:
        return set().union(*({p} | self._ancestors(p) for p in self.parents(name))) if name != BASE else set()


class _WithoutAnchors(yaml.SafeLoader):
    """Refuses a block taken from elsewhere. DVC keeps it shared when it changes a key: lost, or changed everywhere."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise RecipeError(
                f"line {alias.start_mark.line + 1}: *{alias.anchor} takes a block from elsewhere, and `dvc exp run -S` "
                f"cannot change such a block in one place alone; write out what &{alias.anchor} holds"
            )
        return super().compose_node(parent, index)


def load(path: Path) -> Recipe:
    """Raises RecipeError: one line a problem, each naming its key."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _WithoutAnchors)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; `cascade recipe use nano` makes the default one active") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file; a recipe is YAML") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: not a recipe; a recipe is a YAML mapping, see recipes/nano.yaml")
    try:
        return Recipe.model_validate(content)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {_line(problem, content)}" for problem in error.errors())) from None


def recipe_hash(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of the file."""
    return hash_file(path)[:12]


def _line(problem: Any, content: Any) -> str:
    """A pydantic problem as `key: what is wrong`, with the nearest known key for a misspelt one."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        return f"{key}: unknown key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    said = problem["type"] == "value_error" or isinstance(given, dict | list)
    return f"{key}: {message}" + ("" if said else f" (it is {given!r})")


def _fields(location: tuple[Any, ...]) -> list[str]:
    """Known keys of the section at a location of the recipe."""
    section: Any = Recipe
    for part in location:
        if isinstance(section, type) and issubclass(section, Section):
            section = section.model_fields[str(part)].annotation
        else:
            section = section.__args__[-1]
        if hasattr(section, "__args__") and getattr(section, "__origin__", None) is not dict:
            section = next(a for a in section.__args__ if isinstance(a, type) and issubclass(a, Section))
    return list(section.model_fields)
