"""Evaluation results of earlier checkpoints, from MLflow: of this pipeline run, and of earlier ones where the recipe
asks for them.

Decisions read these results. Their DVC inputs determine what they read: a result counts only where it is of the
checkpoint that is under models/ now, and the decision names by hash what was read.
"""

import tempfile
from pathlib import Path
from typing import Protocol

from cascade.decisions.earlier_runs import Earlier, earlier_results
from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult, check_is_its_own, load_result, read_prompts, record
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import EVALUATED, evaluation_journal
from cascade.tracking.background import warn
from cascade.tracking.journal import COMPARABLE, tags_of
from cascade.tracking.mlflow_store import tracking_uri
from cascade.tracking.publisher import Publisher
from cascade.tracking.restore_journal import recall
from cascade.tracking.runs import open_runs
from cascade.utils.files import hash_directory


class History(Protocol):
    source: str
    """Where the results come from, for messages."""

    def evaluation(self, node: str) -> EvaluationResult:
        """The node's per-prompt results. Raises CascadeError where there are none."""
        ...

    def earlier(self, nodes: list[str], present: dict[str, EvaluationResult]) -> list[Earlier]:
        """Results of these nodes in earlier pipeline runs. Raises CascadeError where they cannot be read."""
        ...


class FileHistory:
    """The results under results/evaluations: the same numbers, for when MLflow cannot be reached."""

    def __init__(self, layout: Layout):
        self.source = "results/evaluations"
        self._layout = layout

    def evaluation(self, node: str) -> EvaluationResult:
        return load_result(self._layout, node)

    def earlier(self, nodes: list[str], present: dict[str, EvaluationResult]) -> list[Earlier]:
        raise CascadeError(
            f"earlier_runs: what earlier runs scored is in MLflow ({tracking_uri(self._layout)}), which does not "
            "answer; start its server, or take earlier_runs out of the recipe"
        )


class MLflowHistory:
    """The results logged to the nodes' runs of this pipeline run: prompts.csv and the checkpoint's hash.

    Raises whatever MLflow raises when it cannot be reached.
    """

    def __init__(self, recipe: Recipe, layout: Layout):
        self._layout = layout
        self._publisher = Publisher(recipe, layout)
        self.source = f"MLflow run {self._publisher.parent()}"

    def evaluation(self, node: str) -> EvaluationResult:
        self._catch_up(node)
        client = self._publisher.client
        run = client.get_run(self._publisher.node(node))
        if EVALUATED not in run.data.tags:
            raise CascadeError(f"{node} has no evaluation of its checkpoint; `cascade evaluate {node}` makes it")
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, "evaluation/prompts.csv", folder)
            return EvaluationResult(node, run.data.tags[EVALUATED], read_prompts(Path(path)))

    def earlier(self, nodes: list[str], present: dict[str, EvaluationResult]) -> list[Earlier]:
        client = self._publisher.client
        runs = [client.get_run(self._publisher.node(node)) for node in present]
        comparable = {run.data.tags[COMPARABLE] for run in runs}
        if len(comparable) > 1:
            raise CascadeError(
                f"{', '.join(present)}: not all evaluated on the same benchmarks with the same settings, so no earlier "
                "run compares with all of them; repeat each evaluation (`cascade evaluate NODE`)"
            )
        return earlier_results(open_runs(self._layout), self._layout, nodes, present, comparable.pop())

    def _catch_up(self, node: str) -> None:
        """Copy into this run's journals what another run logged of a checkpoint that DVC restored from its cache."""
        journal = evaluation_journal(self._layout, node)
        result = load_result(self._layout, node)
        recall(node, result.checkpoint, self._layout)
        if tags_of(journal.entries()).get(EVALUATED) != result.checkpoint:
            record(journal, self._layout, node)


def open_history(recipe: Recipe, layout: Layout) -> History:
    """MLflow's history; where MLflow cannot be reached, a warning, and the same results from their files."""
    try:
        return MLflowHistory(recipe, layout)
    except Exception as error:
        warn(error)
        return FileHistory(layout)


def read_results(nodes: list[str], layout: Layout, history: History) -> dict[str, EvaluationResult]:
    """Results of these nodes, in their order.

    Raises CascadeError where one is missing, or is of another checkpoint than the one under models/.
    """
    results: dict[str, EvaluationResult] = {}
    for node in nodes:
        result = history.evaluation(node)
        if result.checkpoint != (found := hash_directory(layout.checkpoint(node))):
            check_is_its_own(node, found, layout)
            raise CascadeError(
                f"{layout.checkpoint(node)}: the evaluation in {history.source} is of another checkpoint; "
                f"`cascade evaluate {node}` repeats it"
            )
        results[node] = result
    return results


def inputs_read(results: dict[str, EvaluationResult]) -> dict[str, dict[str, object]]:
    """What was read, for the decision's file: node → the checkpoint's hash, and the number of prompts by domain."""
    return {
        node: {"checkpoint": result.checkpoint, "prompts": {d: len(p) for d, p in result.domains.items()}}
        for node, result in results.items()
    }
