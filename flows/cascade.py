"""The cascade as a flow: curate → SFT → RL stages → teachers → distillation → … → gate, evaluations beside it."""

import os
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe, load
from tasks.gates import gate_failures
from tasks.nodes import build, evaluation_of, set_slots, stage_of
from tasks.pages import show_results
from tasks.processes import stopped_on_exit


@flow(name="cascade", task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def cascade_flow(project: str = ".") -> State:
    """Build every node of the project's active recipe, parents first, each trained one followed by its evaluation.

    Nodes that are up to date are left alone. The flow fails where a node fails, and where a gate does not pass.
    """
    layout = Layout(Path(project).resolve())
    recipe = load(layout.params)
    run_id = _run_id()
    set_slots(recipe.threads)

    def submit(name: str, stage: str, needs: list[PrefectFuture]) -> PrefectFuture:
        return build.submit(stage, layout.root, run_id, recipe.place(name).pool, wait_for=needs, return_state=False)

    with stopped_on_exit():
        curated = submit(CURATE, CURATE, [])
        built: dict[str, PrefectFuture] = {}
        evaluated: dict[str, PrefectFuture] = {}
        for name in recipe.ordered():
            needs = [evaluated[member] for member in recipe.awaited(name)]
            if name in recipe.training:
                needs += [curated, *(built[parent] for parent in recipe.parents(name))]
            built[name] = submit(name, stage_of(recipe, name), needs)
            if name in recipe.training:
                evaluated[name] = submit(name, evaluation_of(recipe, name), [built[name]])
        futures = [curated, *built.values(), *evaluated.values()]
        wait(futures)
    return _conclude(recipe, layout, futures)


def _conclude(recipe: Recipe, layout: Layout, futures: list[PrefectFuture]) -> State:
    """The flow's state: what failed by itself, not what waited for it."""
    failed = [str(future.state.message) for future in futures if future.state.is_failed()]
    show_results(recipe, layout)
    if failed:
        return Failed(message="; ".join(failed))
    if missed := gate_failures(recipe, layout):
        return Failed(message="; ".join(missed), name="Gate failed")
    return Completed(message="every node is up to date and the gate passed")


def _run_id() -> str:
    """The flow run's id: the processes of all nodes find their MLflow run by it."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    os.environ["CASCADE_RUN_ID"] = str(context.flow_run.id)
    return str(context.flow_run.id)
