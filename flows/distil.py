"""Distillation of one checkpoint from chosen teachers, with the settings of a recipe's node."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from cascade.recipe import CURATE
from flows.context import RecipeName, open_run
from flows.names import run_name
from tasks.artifacts import show_measurements, show_table
from tasks.distillation import arrange, distillation_of
from tasks.nodes import build, evaluation_of, stage_of
from tasks.processes import stopped_on_exit
from tasks.run_directory import ACTIVE


@flow(name="distil", flow_run_name=run_name)
def distil_flow(
    student: str,
    teachers: tuple[str, ...],
    node: str = "mopd",
    recipe: RecipeName = ACTIVE,
    overrides: tuple[str, ...] = (),
    project: str = ".",
) -> State:
    """Distil chosen teachers into a checkpoint, and evaluate it before and after.

    The run has its own directory, .cascade/runs/distil-…, the same for the same choice, so that it resumes where an
    earlier one stopped. The new checkpoint is models/NODE there; nothing is registered.

    Args:
        student: The checkpoint to repair: a node of the project, a directory, or a registered model,
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        teachers: DOMAIN=CHECKPOINT for each domain to recover, named like the student: `math=sft`. In every other
            domain the student is its own teacher, which keeps its level.
        node: The distillation of the recipe whose settings are used: its mix, steps and optimizer.
        recipe: The recipe of these settings, the prompts and the benchmarks. `active` is the project's own
            params.yaml.
        overrides: Changes to the recipe, each KEY=VALUE as with `dvc exp run -S`: `distill.mopd.steps=60`.
        project: Directory of the project.
    """
    choice = distillation_of(project, student, teachers, node, recipe, overrides)
    run = open_run(project, recipe, overrides, choice.directory)
    arrange(choice, run.recipe, run.layout)
    start = run.recipe.distill[node].init
    with stopped_on_exit():
        # Sequential, because each stage needs the one before.
        for name, stage in (
            (CURATE, CURATE),
            (start, evaluation_of(run.recipe, start)),
            (node, stage_of(run.recipe, node)),
            (node, evaluation_of(run.recipe, node)),
        ):
            state: State = build(stage, run.layout.root, run.run_id, run.recipe.place(name), return_state=True)
            if not state.is_completed():
                return state
    show_table(run.recipe, run.layout)
    show_measurements(run.recipe, run.layout)
    return Completed(message=f"{student}: distilled; {run.layout.checkpoint(node)}")
