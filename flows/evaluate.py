"""One checkpoint, evaluated on a recipe's benchmarks: a node's, a directory, or a registered model."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from cascade.recipe import CURATE
from cascade.utils.files import read_json
from flows.context import RecipeName, open_run
from flows.names import run_name
from tasks.artifacts import scores_page
from tasks.checkpoints import checkpoint_named, folder_name
from tasks.nodes import build, state_of
from tasks.processes import run_process, stopped_on_exit
from tasks.run_directory import ACTIVE


@flow(name="evaluate", flow_run_name=run_name)
def evaluate_flow(
    checkpoint: str, recipe: RecipeName = ACTIVE, overrides: tuple[str, ...] = (), project: str = "."
) -> State:
    """Evaluate a checkpoint on every benchmark of a recipe: its scores are on the run's page and in a directory.

    The benchmarks are built where they are not up to date. Results go to .cascade/evaluations/CHECKPOINT of the
    directory that the recipe runs in; no node's results, and no decision, change.

    Args:
        checkpoint: A node of the project (`mopd`, or `base`), a directory, or a registered model: `models:/NAME@ALIAS`
            or `models:/NAME/VERSION`.
        recipe: The recipe of the benchmarks. `active` is the project's own params.yaml.
        overrides: Changes to the recipe, each KEY=VALUE as with `dvc exp run -S`: `evaluation.rollouts=16`.
        project: Directory of the project.
    """
    run = open_run(project, recipe, overrides)
    path = checkpoint_named(checkpoint, run.recipe, run.home)
    out = run.layout.root / ".cascade" / "evaluations" / folder_name(checkpoint)
    with stopped_on_exit():
        curation: State = build(CURATE, run.layout.root, run.run_id, run.recipe.place(CURATE), return_state=True)
        if not curation.is_completed():
            return curation
        module = ["tasks.evaluate", str(path), str(out)]
        state = state_of(checkpoint, run_process(module, run.layout.root, run.run_id, get_run_logger().info))
    if not state.is_completed():
        return state
    create_markdown_artifact(key="scores", markdown=scores_page(checkpoint, read_json(out / "summary.json")))
    return Completed(message=f"{checkpoint}: evaluated; {out}")
