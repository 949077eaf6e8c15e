"""Validation of a recipe's graph: names, references, rounds, teachers, no cycle."""

import re
from collections.abc import Iterable
from typing import Any

from cascade.errors import RecipeError
from cascade.recipe.data import Curation
from cascade.recipe.graph import BASE, RESERVED, Graph
from cascade.recipe.sections import (
    Distillation,
    DistillNode,
    OffPolicyNode,
    QADNode,
    QuantizeNode,
    RegressionCheck,
    RepairNode,
    SFTNode,
    SolveNode,
    TaughtNode,
    TeachersNode,
)


def check(graph: Graph, curation: Curation, pools: Iterable[str]) -> None:
    """Raises RecipeError where the graph cannot be run. `pools`: the nodes with a placement."""
    names = [name for section in graph.sections().values() for name in section]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{graph.kind(name)}.{name}: a node name must be unique over all sections")
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            raise RecipeError(
                f"{graph.kind(name)}.{name}: not a node name; it names files and stages, so lower-case letters, "
                "digits, _ and - alone, a letter first"
            )
        if name in RESERVED:
            raise RecipeError(f"{graph.kind(name)}.{name}: the name stands for {RESERVED[name]}; choose another")
    for kind, section in graph.sections().items():
        for name, node in section.items():
            _check_references(f"{kind}.{name}", node, graph, curation)
    for name in pools:
        if name not in names:
            raise RecipeError(f"pools.{name}: there is no such node; have {', '.join(names)}")
    # Rounds first: one that is wrong makes a cycle of nodes that wait for each other's evaluations.
    for kind, section in graph.sections().items():
        for name, node in section.items():
            if not isinstance(node, SolveNode):
                _check_round(f"{kind}.{name}", node, graph)
    graph.ordered()
    for name, solve in graph.solve.items():
        _check_solve(f"solve.{name}", solve, graph, curation)
    students: dict[str, DistillNode | OffPolicyNode] = {**graph.off_policy, **graph.distill}
    for name, node in students.items():
        candidates = graph.teachers[node.teachers].candidates
        _check_teachers(
            f"{graph.kind(name)}.{name}", node, "teachers", f" of {node.teachers}", candidates, graph, curation
        )
    _check_quantized(graph)
    for name, repair in graph.repair.items():
        _check_teachers(f"repair.{name}", repair, "against", "", repair.against, graph, curation)
        if missing := [domain for domain in curation.domains if domain not in repair.mix]:
            raise RecipeError(
                f"repair.{name}.mix: no share for {missing[0]}; a repair trains on every domain with a benchmark, "
                "so that it breaks none"
            )


def _check_references(key: str, node: Any, graph: Graph, curation: Curation) -> None:
    makers = list(graph.makers())
    # The base model has no evaluation that a repair could check.
    starts = makers if isinstance(node, RepairNode) else [BASE, *makers]
    if isinstance(node, QADNode):
        starts = list(graph.quantize)
    references = {
        "init": ([getattr(node, "init", None)], starts),
        "teachers": ([getattr(node, "teachers", None)], list(graph.teachers)),
        "others": (getattr(node, "others", []), starts),
        "verifiers": (getattr(node, "verifiers", []), starts),
        "candidates": (getattr(node, "candidates", []), makers),
        "against": (getattr(node, "against", []), makers),
        "candidate": ([getattr(node, "candidate", None)], makers),
    }
    for field, (values, candidates) in references.items():
        for value in values:
            if value is not None and value not in candidates:
                wrong = f"{value!r} cannot be used here" if value in (BASE, *makers) else f"no such node {value!r}"
                raise RecipeError(f"{key}.{field}: {wrong}; have {', '.join(candidates) or 'none'}")
    sources = curation.sources.values()
    for domain in getattr(node, "mix", {}):
        if not any(source.rl for source in sources if source.domain == domain):
            raise RecipeError(f"{key}.mix.{domain}: no source in curation.sources gives RL prompts (rl) of it")
    if isinstance(node, SFTNode | QuantizeNode | QADNode) and not any(source.sft for source in sources):
        raise RecipeError(f"{key}: no source in curation.sources gives rows for SFT (sft)")
    if isinstance(node, TeachersNode):
        for domain, allowed in node.domains.items():
            if domain not in curation.domains:
                raise RecipeError(f"{key}.domains.{domain}: no source in curation.sources has a benchmark of it")
            for candidate in allowed:
                if candidate not in node.candidates:
                    raise RecipeError(f"{key}.domains.{domain}: {candidate!r} is not among the candidates")


def _check_teachers(
    key: str,
    node: Distillation | OffPolicyNode,
    field: str,
    of: str,
    candidates: list[str],
    graph: Graph,
    curation: Curation,
) -> None:
    student = _sft_of(node.init, graph)
    for candidate in candidates:
        # Every node descends from the base model; two fine-tunings of it may write in different formats.
        teacher = _sft_of(candidate, graph)
        if student and teacher and not student & teacher:
            raise RecipeError(
                f"{key}.{field}: candidate {candidate!r}{of} is fine-tuned by {', '.join(sorted(teacher))}, "
                f"{node.init!r} by {', '.join(sorted(student))}: no SFT node in common; leave it out"
            )
    for domain in node.mix:
        if domain not in curation.domains:
            raise RecipeError(
                f"{key}.mix.{domain}: without a benchmark of it no teacher can be chosen; give a source "
                "of this domain a benchmark"
            )


def _check_solve(key: str, node: SolveNode, graph: Graph, curation: Curation) -> None:
    domains = list(dict.fromkeys(source.domain for source in curation.sources.values() if source.benchmark))
    if node.benchmark not in domains:
        known = ", ".join(domains) or "none"
        raise RecipeError(f"{key}.benchmark: {node.benchmark!r} is no domain with a benchmark; there are {known}")
    for field, names in {"others": node.others, "verifiers": node.verifiers}.items():
        for name in names:
            if name not in (BASE, node.init) and name not in graph.ancestors(node.init):
                raise RecipeError(
                    f"{key}.{field}: {name!r} is not upstream of {node.init!r}, so DVC would not see it change; leave "
                    "it out, or make it `init`"
                )
    submits = node.strategy.name == "generate-select-submit"
    kinds = {source.rows_name for source in curation.sources.values() if source.domain == node.benchmark}
    if submits and kinds != {"competition"}:
        raise RecipeError(
            f"{key}.strategy.name: generate-select-submit needs problems with subtasks, and the rows of "
            f"{node.benchmark} are of {', '.join(sorted(kinds))}; say generate-verify-refine"
        )
    if not submits and node.budget.submissions is not None:
        raise RecipeError(f"{key}.budget.submissions: generate-verify-refine submits nothing; take it out")


def _check_quantized(graph: Graph) -> None:
    """Quantised weights are not trained further, except from the weights that they were quantised from (`qad`)."""
    quantized = {**graph.quantize, **graph.qad}
    for name, node in graph.makers().items():
        if node.init in quantized and name not in graph.qad:
            raise RecipeError(
                f"{graph.kind(name)}.{name}.init: {node.init!r} is quantised; start from what it was quantised from"
            )
    for name, distillation in graph.qad.items():
        if distillation.against != (whole := [graph.quantize[distillation.init].init]):
            raise RecipeError(
                f"qad.{name}.against: {', '.join(distillation.against)}; it is compared with, and distilled from, what "
                f"{distillation.init} was quantised from: {whole[0]}"
            )
    for name, choice in graph.teachers.items():
        if found := [candidate for candidate in choice.candidates if candidate in quantized]:
            raise RecipeError(f"teachers.{name}.candidates: {found[0]!r} is quantised; leave it out")
    for name, repair in graph.repair.items():
        if found := [other for other in repair.against if other in quantized]:
            raise RecipeError(f"repair.{name}.against: {found[0]!r} is quantised, and does not teach; leave it out")


def _sft_of(name: str, graph: Graph) -> set[str]:
    """The SFT nodes from the base model to a node, itself included."""
    return (graph.ancestors(name) | {name}) & set(graph.sft)


def _check_round(key: str, node: Any, graph: Graph) -> None:
    """DVC's stages must have the order of the nodes: a node cannot read a round that comes after it."""
    reads = "reads_round" if isinstance(node, RegressionCheck) else "round"
    last = getattr(node, reads)
    makers = graph.makers()
    for field, names in {
        "init": [getattr(node, "init", BASE)],
        "candidates": getattr(node, "candidates", []),
        "against": getattr(node, "against", []),
        "candidate": [getattr(node, "candidate", BASE)],
    }.items():
        for name in names:
            if name != BASE and last < (earliest := makers[name].round):
                raise RecipeError(f"{key}.{reads}: {last}, but its {field} {name!r} is of round {earliest}")
    if isinstance(node, TaughtNode) and node.round != graph.teachers[node.teachers].round + 1:
        raise RecipeError(
            f"{key}.round: {node.round}; a distillation opens the round after its teachers', "
            f"{graph.teachers[node.teachers].round + 1}"
        )
    if isinstance(node, QuantizeNode) and node.init != BASE and node.round != (wanted := makers[node.init].round):
        raise RecipeError(
            f"{key}.round: {node.round}; who reads a quantised checkpoint reads that of its init too, so say the round "
            f"of {node.init}, {wanted}"
        )
    if isinstance(node, RepairNode | QADNode) and node.round != last + 1:
        what = "a repair" if isinstance(node, RepairNode) else "qad"
        raise RecipeError(f"{key}.round: {node.round}; {what} opens the round after the one it reads, {last + 1}")
    openers = [
        opener.round
        for section in (graph.off_policy, graph.distill, graph.repair, graph.qad)
        for opener in section.values()
    ]
    rounds = {1, *openers}
    for field in dict.fromkeys((reads, "round")):
        if (round := getattr(node, field)) not in rounds:
            raise RecipeError(f"{key}.{field}: {round}, but no distillation or repair opens that round")
