"""The Prefect task of a node: bring its DVC stage up to date, on the pool that the recipe names."""

import os
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Completed, Failed

from cascade.layout import Layout
from cascade.recipe import LOCAL_POOL, Placement, Recipe, load
from cascade.tracking import following
from tasks.processes import Outcome, run_stage, stopping
from tasks.progress import StepProgress

INTERRUPTED = "Interrupted"

HERE = ("local", "torchrun")
"""Launchers that start processes on this machine."""

POLL = 5.0
"""Seconds between two polls of a run on another pool."""

_slots = threading.BoundedSemaphore(1)


def stage_of(recipe: Recipe, name: str) -> str:
    """The DVC stage that builds a node."""
    return f"{recipe.kind(name)}@{name}"


def evaluation_of(recipe: Recipe, name: str) -> str:
    """The DVC stage that evaluates a training node."""
    return f"evaluate-{recipe.kind(name)}@{name}"


def set_slots(threads: int) -> None:
    """Limit the stages that run in parallel on this machine to its CPUs divided by `threads`."""
    global _slots
    _slots = threading.BoundedSemaphore(max(1, len(os.sched_getaffinity(0)) // threads))


def _was_interrupted(task: Any, run: Any, state: State) -> bool:
    """Prefect 3.7 wraps the returned state in another state, 3.9 does not."""
    returned = state.data if isinstance(state.data, State) else state
    return returned.name == INTERRUPTED


@task(task_run_name="{stage}", retries=3, retry_delay_seconds=[1, 10, 60], retry_condition_fn=_was_interrupted)
def build(stage: str, root: Path, run_id: str, place: Placement, force: bool = False) -> State:
    """Build a stage, unless it is up to date; with `force`, even then. A stage that was killed is run again and
    resumes."""
    if place.pool != LOCAL_POOL:
        return build_on(place.pool, stage, root, run_id, force)
    # A stage on a cluster needs no CPU here, only a waiting process.
    with _slots if place.launcher in HERE else nullcontext():
        return build_here(stage, root, run_id, force)


def build_here(stage: str, root: Path, run_id: str, force: bool) -> State:
    """Run the stage from this machine. This process publishes the journals of local processes; a cluster's job
    publishes its own."""
    layout = Layout(root)
    recipe, node = load(layout.params), stage.rpartition("@")[2]
    local = recipe.place(node).launcher in HERE
    log, progress = get_run_logger(), StepProgress()

    def say(line: str) -> None:
        log.info(line)
        progress.line(line)

    with following(recipe, layout, node) if local else nullcontext() as environment:
        return state_of(stage, run_stage(stage, root, run_id, say, force, environment))


def state_of(what: str, outcome: Outcome) -> State:
    if outcome.kind in ("failed", "interrupted"):
        name = INTERRUPTED if outcome.kind == "interrupted" else None
        return Failed(message=f"{what}: {outcome.message}", name=name)
    return Completed(message=what, name=outcome.kind.capitalize())


def build_on(pool: str, stage: str, root: Path, run_id: str, force: bool) -> State:
    """Run the stage on a worker of another pool with the same project directory (deployment node/POOL). It is cancelled
    when this run is stopped, and counts as interrupted where its worker or machine was lost."""
    say = get_run_logger().info
    say("%s: waiting for a worker of the pool %s", stage, pool)
    parameters = {"stage": stage, "project": str(root), "run_id": run_id, "anew": force}
    try:
        # Prefect's own waiting could not be interrupted when the run is stopped.
        run = run_deployment(f"node/{pool}", parameters=parameters, flow_run_name=stage, timeout=0)
    except ObjectNotFound:
        return Failed(message=f"{stage}: no deployment node/{pool}; see prefect.yaml, or drop the node from `pools`")
    assert isinstance(run, FlowRun)
    with get_client(sync_client=True) as prefect:
        while not (state := prefect.read_flow_run(run.id).state) or not state.is_final():
            if stopping.wait(POLL):
                prefect.set_flow_run_state(run.id, Cancelling())
                return Failed(message=f"{stage}: stopped; its run on the pool {pool} is being cancelled")
    if state.is_completed():
        return state
    return Failed(message=state.message or stage, name=INTERRUPTED if state.is_crashed() else state.name)
