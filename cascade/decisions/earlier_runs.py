"""Checkpoints of earlier pipeline runs of the same recipe family, with their scores from MLflow."""

from dataclasses import dataclass

from cascade.evaluation.results import EvaluationResult, parse_prompts
from cascade.layout import Layout
from cascade.tracking.dvc_cache import is_cached
from cascade.tracking.journal import COMPARABLE, EVALUATED
from cascade.tracking.runs import Runs, node_of, pipeline_of
from cascade.utils.progress import say

CHECKPOINT_TAG = "dvc/models/"
"""Prefix of the tag that holds DVC's hash of a node's checkpoint."""


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

    Only evaluations on the same benchmarks with the same settings, seed and judges count (`comparable`: the hash of
    these), of checkpoints whose files are in DVC's local cache. A checkpoint that is not in the cache is left out, with
    a message.
    """
    seen_checkpoints = {result.checkpoint for result in present.values()}
    results: list[Earlier] = []
    for run in runs.nodes:
        tags, node = run.data.tags, node_of(run)
        content = tags.get(EVALUATED)
        if node not in nodes or content is None or content in seen_checkpoints or tags.get(COMPARABLE) != comparable:
            continue
        seen_checkpoints.add(content)
        name = f"{node}@{pipeline_of(run)}"
        dvc_hash = tags.get(CHECKPOINT_TAG + node)
        if dvc_hash is None or not is_cached(layout, dvc_hash):
            say(f"{name}: left out, its checkpoint is not in DVC's cache here; `dvc fetch` of its revision brings it")
            continue
        text = runs.artifact(run, "evaluation/prompts.csv")
        if text is not None:
            results.append(Earlier(node, EvaluationResult(name, content, parse_prompts(text, name)), dvc_hash))
    return results
