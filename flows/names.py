"""Names of flow runs on Prefect's pages: recipe, purpose, number. `nano run 3`, `nano evaluate mopd 1`."""

from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.context import FlowRunContext

from tasks.run_directory import ACTIVE

PURPOSES = {
    "cascade": "run",
    "curate": "curate",
    "evaluate": "evaluate {checkpoint}",
    "distil": "distil {student}",
}
"""Flow → purpose of its run, as a format of its parameters."""


def run_name() -> str:
    """The name of the current flow run, numbered among those of the same recipe and purpose."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow is not None
    parameters = context.parameters or {}
    purpose = PURPOSES[context.flow.name].format(**parameters)
    stem = f"{_recipe_name(parameters['recipe'], Path(parameters['project']))} {purpose}"
    name_filter = FlowRunFilter(name=FlowRunFilterName(like_=f"{stem} "))
    with get_client(sync_client=True) as client:
        return f"{stem} {client.count_flow_runs(flow_run_filter=name_filter) + 1}"


def _recipe_name(recipe: str, project: Path) -> str:
    """The recipe's name; of the active one, the name in its file. An unreadable file is reported when the flow opens
    it."""
    if recipe != ACTIVE:
        return Path(recipe).stem
    try:
        content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ACTIVE
    return str(content.get("name", ACTIVE)) if isinstance(content, dict) else ACTIVE
