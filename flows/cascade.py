"""The cascade as a flow: curate → SFT → RL stages → teachers → distillation → … → gate, with an evaluation after
each."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from cascade.decisions.outcomes import gate_failures
from cascade.errors import CascadeError
from cascade.launch import fork_server
from cascade.launch.process_setup import thread_settings
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe
from flows.context import RecipeName, open_run
from flows.names import run_name
from tasks.approvals import held_back, wait_for_approval
from tasks.artifacts import show_results
from tasks.nodes import build, evaluation_of, stage_of
from tasks.processes import stopped_on_exit
from tasks.run_directory import ACTIVE


@flow(name="cascade", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def cascade_flow(
    recipe: RecipeName = ACTIVE,
    overrides: tuple[str, ...] = (),
    approve: tuple[str, ...] = (),
    anew: bool = False,
    project: str = ".",
) -> State:
    """Build every node of a recipe, parents first, each trained one followed by its evaluation.

    Nodes that are up to date are not built. The run fails where a node fails, and where a gate does not pass.

    Args:
        recipe: `active` runs the project's own params.yaml, in the project. Any other runs in its own directory,
            .cascade/runs/NAME, and does not change params.yaml and the project's results; both share one cache.
        overrides: Changes to the recipe, each KEY=VALUE as with `dvc exp run -S`: `rl.if_rl.steps=100`, `seed=1`. With
            any, the run has its own directory, the same for the same changes.
        approve: Nodes before which the run pauses until someone resumes it: `mopd` before it is trained, a gate such as
            `release` before a model is registered. What does not depend on them goes on.
        anew: Build every node, also those that are up to date, as after a change of the code.
        project: Directory of the project.
    """
    run = open_run(project, recipe, overrides)
    graph, layout = run.recipe, run.layout
    unapproved = held_back(graph, approve)

    def submit(name: str, stage: str, needs: list[PrefectFuture]) -> PrefectFuture:
        placement = graph.place(name)
        return build.submit(stage, layout.root, run.run_id, placement, anew, wait_for=needs, return_state=False)

    with stopped_on_exit(), fork_server.server(thread_settings(graph)):
        curated = submit(CURATE, CURATE, [])
        built: dict[str, PrefectFuture] = {}
        evaluated: dict[str, PrefectFuture] = {}
        # Nodes that need no approval first, so that a pause does not keep them from being submitted.
        for name in sorted(graph.ordered(), key=unapproved.__contains__):
            needs = [evaluated[member] for member in graph.awaited(name)]
            if name in graph.training or name in graph.solve:
                needs += [curated, *(built[parent] for parent in graph.parents(name))]
            if name in approve:
                wait_for_approval(name, needs, graph, layout)
            built[name] = submit(name, stage_of(graph, name), needs)
            if name in graph.training:
                evaluated[name] = submit(name, evaluation_of(graph, name), [built[name]])
        futures = [curated, *built.values(), *evaluated.values()]
        wait(futures)
    return _conclude(graph, layout, futures)


def _conclude(recipe: Recipe, layout: Layout, futures: list[PrefectFuture]) -> State:
    """The flow's state: names the tasks that failed, not those that depend on them."""
    failed = [str(future.state.message) for future in futures if future.state.is_failed()]
    try:
        show_results(recipe, layout)
    except CascadeError as error:  # An earlier failure must stay in the run's state.
        failed.append(str(error))
    if failed:
        return Failed(message="; ".join(failed))
    if missed := gate_failures(recipe, layout):
        return Failed(message="; ".join(missed), name="Gate failed")
    return Completed(message="every node is up to date and the gate passed")
