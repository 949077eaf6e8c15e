"""One node as a flow, which the worker of the node's pool runs."""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.nodes import build_here
from tasks.processes import stopped_on_exit


@flow(name="node")
def node_flow(stage: str, project: str, run_id: str, anew: bool = False) -> State:
    """Bring one DVC stage of a project up to date. Runs of the deployment `cascade` start this one.

    Args:
        stage: Name of the DVC stage, such as `rl@if_rl`.
        project: Directory of the project, as this machine sees it.
        run_id: The run that the node belongs to, for MLflow.
        anew: Build the stage also where it is up to date.
    """
    with stopped_on_exit():
        return build_here(stage, Path(project), run_id, anew)
