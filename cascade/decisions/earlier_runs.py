"""Checkpoints of earlier pipeline runs of the same recipe family: what they scored, as MLflow has it."""

from dataclasses import dataclass

from cascade.evaluation.results import EvaluationResult, parse_prompts
from cascade.layout import Layout
from cascade.tracking.dvc_cache import is_kept
from cascade.tracking.journal import COMPARABLE, EVALUATED
from cascade.tracking.runs import Runs, node_of, pipeline_of
from cascade.utils.progress import say

KEPT = "dvc/models/"
"""Prefix of the tag with the hash under which DVC keeps a node's checkpoint."""


@dataclass(frozen=True)
class Earlier:
    """A checkpoint of an earlier pipeline run and its evaluation, named NODE@PIPELINE."""

    node: str
    result: EvaluationResult
    dvc: str
    """DVC's hash of the checkpoint's directory."""


def earlier_results(
    runs: Runs, layout: Layout, nodes: list[str], present: dict[str, EvaluationResult], comparable: str
) -> list[Earlier]:
    """Evaluations of these nodes in earlier runs, the oldest first: each checkpoint once, and none of `present`.

    Only those count that were made as the present ones were (`comparable`: the hash of benchmarks, settings, seed and
    judges), and whose files DVC's cache here has; one that lacks them is named.
    """
    known = {result.checkpoint for result in present.values()}
    found: list[Earlier] = []
    for run in runs.nodes:
        tags, node = run.data.tags, node_of(run)
        content = tags.get(EVALUATED)
        if node not in nodes or content is None or content in known or tags.get(COMPARABLE) != comparable:
            continue
        known.add(content)
        name = f"{node}@{pipeline_of(run)}"
        kept = tags.get(KEPT + node)
        if kept is None or not is_kept(layout, kept):
            say(f"{name}: left out, its checkpoint is not in DVC's cache here; `dvc fetch` of its revision brings it")
            continue
        text = runs.artifact(run, "evaluation/prompts.csv")
        if text is not None:
            found.append(Earlier(node, EvaluationResult(name, content, parse_prompts(text, name)), kept))
    return found
