"""What two runs have in common and where they differ, from MLflow alone."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cascade.commands.lineage.graph import Graph, open_graph
from cascade.decisions.regression import MIN_SHARED
from cascade.errors import CascadeError
from cascade.evaluation.results import PromptResult, parse_prompts
from cascade.evaluation.statistics import Interval, paired_test
from cascade.layout import Layout
from cascade.recipe import PIPELINE
from cascade.tracking.runs import node_of, title

if TYPE_CHECKING:
    from mlflow.entities import Run

Domains = dict[str, list[PromptResult]]
Difference = tuple[str, str, str]
"""What differs, and its value in the first and in the second run; `-` where a run does not have it."""

FACTS = ("recipe", "recipe_hash", "seed", "git_revision")
ABSENT = "-"


@dataclass(frozen=True)
class Score:
    """avg@k of one domain in both runs; None where a run has none. `difference` is second − first.

    On the same prompts it is the mean of the `prompts` paired differences, with the 95 % interval of a paired t;
    on others, the difference of the two scores, without an interval.
    """

    domain: str
    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    prompts: int


@dataclass(frozen=True)
class Pair:
    """One checkpoint of each run."""

    first: str
    second: str
    scores: list[Score]


@dataclass(frozen=True)
class Cost:
    """Of one node: `seconds` of its own steps, `tokens` that it trained on; None until it is finished."""

    node: str
    first: tuple[float, int] | None
    second: tuple[float, int] | None


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    pairs: list[Pair]
    settings: list[Difference]
    hashes: list[Difference]
    costs: list[Cost]
    only: dict[str, list[str]]
    """Run → nodes that the other does not have."""


def compare(first: str, second: str, layout: Layout) -> Comparison:
    """Compare two node runs, or two pipeline runs node by node (`Graph.named` says how a run is named). Of a node that
    a run found up to date, settings, data and costs are those of the run that made it.

    Raises CascadeError where there is no such run, or one is a node's and the other a whole pipeline's.
    """
    graph = open_graph(layout)
    one, other = graph.named(first), graph.named(second)
    if one.info.run_id == other.info.run_id:
        raise CascadeError(f"{first} and {second} are the same run, {title(one)}; name two")
    whole = [node_of(run) == PIPELINE for run in (one, other)]
    if any(whole) and not all(whole):
        raise CascadeError(
            f"{first} and {second}: one is a pipeline run and the other a node's; name two of a kind (PIPELINE/NODE)"
        )
    if not any(whole):
        return _compare(graph, (one, other), {node_of(one): (one, other)}, {})
    ours, theirs = ({node_of(run): run for run in graph.runs.children(each)} for each in (one, other))
    shared = {node: (run, theirs[node]) for node, run in ours.items() if node in theirs}
    if not shared:
        raise CascadeError(f"{first} and {second} have no node in common; compare two nodes (PIPELINE/NODE)")
    only = {
        title(one): [node for node in ours if node not in theirs],
        title(other): [node for node in theirs if node not in ours],
    }
    return _compare(graph, (one, other), shared, only)


def _compare(
    graph: Graph,
    wholes: "tuple[Run, Run]",
    nodes: "dict[str, tuple[Run, Run]]",
    only: dict[str, list[str]],
) -> Comparison:
    parents = tuple(graph.runs.pipeline(graph.origin(run)) or run for run in wholes)
    settings = _differences("", *({k: v for k, v in run.data.tags.items() if k in FACTS} for run in parents))
    hashes: list[Difference] = []
    pairs, costs = [], []
    for node, (one, other) in nodes.items():
        prefix = f"{node}." if len(nodes) > 1 else ""
        made = [graph.origin(run) for run in (one, other)]
        settings += _differences(prefix, *(run.data.params for run in made))
        hashes += _differences(prefix, *(_hashes(run) for run in made))
        domains = [_domains(graph, run) for run in (one, other)]
        if any(domains):
            pairs.append(Pair(_title(graph, one), _title(graph, other), _scores(*domains)))
        spent = [_cost(graph, run) for run in made]
        if any(spent):
            costs.append(Cost(node if node_of(one) == node_of(other) else f"{node_of(one)}, {node_of(other)}", *spent))
    first, second = (_title(graph, run) for run in wholes)
    return Comparison(first, second, pairs, settings, hashes, costs, {run: n for run, n in only.items() if n})


def _title(graph: Graph, run: "Run") -> str:
    made = graph.origin(run)
    return title(run) if made is run else f"{title(run)} (made by {title(made)})"


def _scores(ours: Domains, theirs: Domains) -> list[Score]:
    return [_score(d, ours.get(d, []), theirs.get(d, [])) for d in dict.fromkeys([*ours, *theirs])]


def _score(domain: str, ours: list[PromptResult], theirs: list[PromptResult]) -> Score:
    first, second = _mean(ours), _mean(theirs)
    if first is None or second is None:
        return Score(domain, first, second, None, None, 0)
    before, after = ({r.prompt_id: r.reward for r in results} for results in (ours, theirs))
    shared = [prompt for prompt in before if prompt in after]
    if len(shared) < max(2, MIN_SHARED * max(len(before), len(after))):
        return Score(domain, first, second, second - first, None, 0)
    test = paired_test([after[p] for p in shared], [before[p] for p in shared], "compare", domain)
    return Score(domain, first, second, test.difference, test.interval, test.prompts)


def _mean(results: list[PromptResult]) -> float | None:
    return sum(r.reward for r in results) / len(results) if results else None


def _domains(graph: Graph, run: "Run") -> Domains:
    text = graph.runs.artifact(run, "evaluation/prompts.csv")
    return parse_prompts(text, f"evaluation/prompts.csv of run {run.info.run_id}") if text is not None else {}


def _hashes(run: "Run") -> dict[str, str]:
    """What the run was made from: its start, and each file of data by its content."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    found = {f"data {each.dataset.name}": str(each.dataset.digest) for each in inputs}
    if (parent := run.data.tags.get("parent_hash")) is not None:
        found["start"] = f"{run.data.tags.get('parent', '')} {parent}"
    found |= {k.replace("teacher_hash/", "teacher of "): v for k, v in run.data.tags.items() if "teacher_hash/" in k}
    return found


def _cost(graph: Graph, run: "Run") -> tuple[float, int] | None:
    text = graph.runs.artifact(run, "training/manifest.json")
    if text is None:
        return None
    manifest = json.loads(text)
    return float(manifest["seconds"]), int(manifest["tokens"])


def _differences(prefix: str, ours: dict[str, str], theirs: dict[str, str]) -> list[Difference]:
    return [
        (prefix + key, ours.get(key, ABSENT), theirs.get(key, ABSENT))
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
