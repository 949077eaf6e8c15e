"""The task behind every node of the graph: its DVC stage, brought up to date where the recipe wants it run."""

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
"""Launchers whose processes are this machine's."""

POLL = 5.0
"""Seconds between two looks at a run on another pool."""

_slots = threading.BoundedSemaphore(1)


def stage_of(recipe: Recipe, name: str) -> str:
    """The DVC stage that builds a node."""
    return f"{recipe.kind(name)}@{name}"


def evaluation_of(recipe: Recipe, name: str) -> str:
    """The DVC stage that evaluates a training node."""
    return f"evaluate-{recipe.kind(name)}@{name}"


def set_slots(threads: int) -> None:
    """As many stages run side by side on this machine as there are `threads` of CPU for each of them."""
    global _slots
    _slots = threading.BoundedSemaphore(max(1, len(os.sched_getaffinity(0)) // threads))


def _was_interrupted(task: Any, run: Any, state: State) -> bool:
    """Prefect 3.7 wraps what the task returned in a state of its own, 3.9 gives it as it is."""
    returned = state.data if isinstance(state.data, State) else state
    return returned.name == INTERRUPTED


@task(task_run_name="{stage}", retries=3, retry_delay_seconds=[1, 10, 60], retry_condition_fn=_was_interrupted)
def build(stage: str, root: Path, run_id: str, place: Placement, force: bool = False) -> State:
    """Build what a stage makes, unless it is up to date; with `force`, even then. A stage that was killed is run again
    and resumes."""
    if place.pool != LOCAL_POOL:
        return build_on(place.pool, stage, root, run_id, force)
    # A stage on a cluster takes nothing here but a process that waits for it.
    with _slots if place.launcher in HERE else nullcontext():
        return build_here(stage, root, run_id, force)


def build_here(stage: str, root: Path, run_id: str, force: bool) -> State:
    """In processes of this machine, whose measurements this one publishes; those of a cluster's jobs do so
    themselves."""
    layout = Layout(root)
    recipe, node = load(layout.params), stage.rpartition("@")[2]
    here = recipe.place(node).launcher in HERE
    log, progress = get_run_logger(), StepProgress()

    def say(line: str) -> None:
        log.info(line)
        progress.line(line)

    with following(recipe, layout, node) if here else nullcontext() as environment:
        return state_of(stage, run_stage(stage, root, run_id, say, force, environment))


def state_of(what: str, ended: Outcome) -> State:
    if ended.kind in ("failed", "interrupted"):
        name = INTERRUPTED if ended.kind == "interrupted" else None
        return Failed(message=f"{what}: {ended.message}", name=name)
    return Completed(message=what, name=ended.kind.capitalize())


def build_on(pool: str, stage: str, root: Path, run_id: str, force: bool) -> State:
    """On a worker of another pool, which sees the same project directory (deployment node/POOL). A run that is stopped
    has it cancelled there; one whose worker or machine was lost counts as interrupted."""
    say = get_run_logger().info
    say("%s: waiting for a worker of the pool %s", stage, pool)
    parameters = {"stage": stage, "project": str(root), "run_id": run_id, "anew": force}
    try:
        # Prefect's own waiting could not be left when the run is stopped.
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
