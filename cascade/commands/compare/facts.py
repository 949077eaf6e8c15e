"""Comparison of two runs from MLflow's data."""

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
"""The name of a value that differs, and the value in the first and the second run; `-` if a run does not have it."""

FACTS = ("recipe", "recipe_hash", "seed", "git_revision")
ABSENT = "-"


@dataclass(frozen=True)
class Score:
    """avg@k of one domain in both runs; None if a run has none. `difference` is second − first.

    On the same prompts it is the mean of `prompts` paired differences, with a 95 % interval (paired t);
    on different prompts, the difference of the two scores, without an interval.
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
    """(seconds, trained tokens) of a node in both runs; None until it is finished."""

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
    """Run → nodes that the other run does not have."""


def compare(first: str, second: str, layout: Layout) -> Comparison:
    """Compare two node runs, or two pipeline runs node by node (names of runs: `Graph.named`). For a node whose result
    was reused, settings, data and costs are those of the run that computed it.

    Raises CascadeError for an unknown run, and if one run is a node's and the other a pipeline's.
    """
    graph = open_graph(layout)
    first_run, second_run = graph.named(first), graph.named(second)
    if first_run.info.run_id == second_run.info.run_id:
        raise CascadeError(f"{first} and {second} are the same run, {title(first_run)}; name two")
    are_pipelines = [node_of(run) == PIPELINE for run in (first_run, second_run)]
    if any(are_pipelines) and not all(are_pipelines):
        raise CascadeError(
            f"{first} and {second}: one is a pipeline run and the other a node's; name two of a kind (PIPELINE/NODE)"
        )
    if not any(are_pipelines):
        return _compare(graph, (first_run, second_run), {node_of(first_run): (first_run, second_run)}, {})
    first_nodes, second_nodes = (
        {node_of(run): run for run in graph.runs.children(each)} for each in (first_run, second_run)
    )
    shared = {node: (run, second_nodes[node]) for node, run in first_nodes.items() if node in second_nodes}
    if not shared:
        raise CascadeError(f"{first} and {second} have no node in common; compare two nodes (PIPELINE/NODE)")
    only = {
        title(first_run): [node for node in first_nodes if node not in second_nodes],
        title(second_run): [node for node in second_nodes if node not in first_nodes],
    }
    return _compare(graph, (first_run, second_run), shared, only)


def _compare(
    graph: Graph,
    compared: "tuple[Run, Run]",
    nodes: "dict[str, tuple[Run, Run]]",
    only: dict[str, list[str]],
) -> Comparison:
    parents = tuple(graph.runs.pipeline(graph.origin(run)) or run for run in compared)
    settings = _differences("", *({k: v for k, v in run.data.tags.items() if k in FACTS} for run in parents))
    hashes: list[Difference] = []
    pairs, costs = [], []
    for node, (first_run, second_run) in nodes.items():
        prefix = f"{node}." if len(nodes) > 1 else ""
        origins = [graph.origin(run) for run in (first_run, second_run)]
        settings += _differences(prefix, *(run.data.params for run in origins))
        hashes += _differences(prefix, *(_hashes(run) for run in origins))
        domains = [_domains(graph, run) for run in (first_run, second_run)]
        if any(domains):
            pairs.append(Pair(_title(graph, first_run), _title(graph, second_run), _scores(*domains)))
        node_costs = [_cost(graph, run) for run in origins]
        if any(node_costs):
            costs.append(
                Cost(
                    node
                    if node_of(first_run) == node_of(second_run)
                    else f"{node_of(first_run)}, {node_of(second_run)}",
                    *node_costs,
                )
            )
    first, second = (_title(graph, run) for run in compared)
    return Comparison(first, second, pairs, settings, hashes, costs, {run: n for run, n in only.items() if n})


def _title(graph: Graph, run: "Run") -> str:
    origin = graph.origin(run)
    return title(run) if origin is run else f"{title(run)} (made by {title(origin)})"


def _scores(first: Domains, second: Domains) -> list[Score]:
    return [_score(d, first.get(d, []), second.get(d, [])) for d in dict.fromkeys([*first, *second])]


def _score(domain: str, first_results: list[PromptResult], second_results: list[PromptResult]) -> Score:
    first, second = _mean(first_results), _mean(second_results)
    if first is None or second is None:
        return Score(domain, first, second, None, None, 0)
    first_rewards, second_rewards = (
        {r.prompt_id: r.reward for r in results} for results in (first_results, second_results)
    )
    shared = [prompt for prompt in first_rewards if prompt in second_rewards]
    if len(shared) < max(2, MIN_SHARED * max(len(first_rewards), len(second_rewards))):
        return Score(domain, first, second, second - first, None, 0)
    test = paired_test([second_rewards[p] for p in shared], [first_rewards[p] for p in shared], "compare", domain)
    return Score(domain, first, second, test.difference, test.interval, test.prompts)


def _mean(results: list[PromptResult]) -> float | None:
    return sum(r.reward for r in results) / len(results) if results else None


def _domains(graph: Graph, run: "Run") -> Domains:
    text = graph.runs.artifact(run, "evaluation/prompts.csv")
    return parse_prompts(text, f"evaluation/prompts.csv of run {run.info.run_id}") if text is not None else {}


def _hashes(run: "Run") -> dict[str, str]:
    """Hashes of the run's inputs: its initial checkpoint, data files and teachers."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    hashes = {f"data {each.dataset.name}": str(each.dataset.digest) for each in inputs}
    if (parent := run.data.tags.get("parent_hash")) is not None:
        hashes["start"] = f"{run.data.tags.get('parent', '')} {parent}"
    hashes |= {k.replace("teacher_hash/", "teacher of "): v for k, v in run.data.tags.items() if "teacher_hash/" in k}
    return hashes


def _cost(graph: Graph, run: "Run") -> tuple[float, int] | None:
    text = graph.runs.artifact(run, "training/manifest.json")
    if text is None:
        return None
    manifest = json.loads(text)
    return float(manifest["seconds"]), int(manifest["tokens"])


def _differences(prefix: str, first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    return [
        (prefix + key, first.get(key, ABSENT), second.get(key, ABSENT))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
