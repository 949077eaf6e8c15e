"""Curation as a flow, to inspect the data of a recipe before training."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State

from cascade.recipe import CURATE
from flows.context import RecipeName, open_run
from flows.names import run_name
from tasks.artifacts import curation_page
from tasks.nodes import build
from tasks.processes import stopped_on_exit
from tasks.run_directory import ACTIVE


@flow(name="curate", flow_run_name=run_name)
def curate_flow(
    recipe: RecipeName = ACTIVE, overrides: tuple[str, ...] = (), anew: bool = False, project: str = "."
) -> State:
    """Build the data of a recipe and nothing else: SFT sequences, RL prompts, benchmarks, rejects and the report.

    Args:
        recipe: `active` builds the project's own data/. Any other has its own directory, .cascade/runs/NAME.
        overrides: Changes to the recipe, each KEY=VALUE as with `dvc exp run -S`: `curation.sources.math.rl=1000`.
        anew: Build the data also where it is up to date.
        project: Directory of the project.
    """
    run = open_run(project, recipe, overrides)
    with stopped_on_exit():
        state: State = build(CURATE, run.layout.root, run.run_id, run.recipe.place(CURATE), anew, return_state=True)
    if state.is_completed():
        create_markdown_artifact(key="data", markdown=curation_page(run.layout), description=run.recipe.name)
    return state
