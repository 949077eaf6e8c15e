"""One node as a flow of its own: what the worker of a node's pool runs."""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.nodes import build_here
from tasks.processes import stopped_on_exit


@flow(name="node")
def node_flow(stage: str, project: str, run_id: str) -> State:
    """Bring one DVC stage of the project up to date."""
    with stopped_on_exit():
        return build_here(stage, Path(project), run_id)
