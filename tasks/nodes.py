"""The task behind every node of the graph: its DVC stage, brought up to date where the recipe wants it run."""

import os
import threading
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from cascade.recipe import LOCAL_POOL, Recipe
from tasks.processes import run_stage

INTERRUPTED = "Interrupted"

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
    return isinstance(state.data, State) and state.data.name == INTERRUPTED


@task(task_run_name="{stage}", retries=3, retry_delay_seconds=[1, 10, 60], retry_condition_fn=_was_interrupted)
def build(stage: str, root: Path, run_id: str, pool: str = LOCAL_POOL) -> State:
    """Build what a stage makes, unless it is up to date. A stage that was killed is run again and resumes."""
    return build_here(stage, root, run_id) if pool == LOCAL_POOL else _build_on(pool, stage, root, run_id)


def build_here(stage: str, root: Path, run_id: str) -> State:
    with _slots:
        ended = run_stage(stage, root, run_id, get_run_logger().info)
    if ended.kind in ("failed", "interrupted"):
        name = INTERRUPTED if ended.kind == "interrupted" else None
        return Failed(message=f"{stage}: {ended.message}", name=name)
    return Completed(message=stage, name=ended.kind.capitalize())


def _build_on(pool: str, stage: str, root: Path, run_id: str) -> State:
    """On a worker of another pool, which sees the same project directory (deployment node/POOL)."""
    get_run_logger().info("%s: waiting for a worker of the pool %s", stage, pool)
    parameters = {"stage": stage, "project": str(root), "run_id": run_id}
    try:
        run = run_deployment(f"node/{pool}", parameters=parameters, flow_run_name=stage)
    except ObjectNotFound:
        return Failed(message=f"{stage}: no deployment node/{pool}; see prefect.yaml, or drop the node from `pools`")
    assert isinstance(run, FlowRun)
    assert run.state is not None
    return run.state if run.state.is_completed() else Failed(message=run.state.message, name=run.state.name)
