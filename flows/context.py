"""The context of a flow run: recipe, directory, run id; and the type of the recipe parameter."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prefect.context import FlowRunContext
from pydantic import Field

from cascade.layout import Layout
from cascade.recipe import Recipe, load
from tasks.nodes import set_slots
from tasks.run_directory import ACTIVE, project_of

RecipeName = Annotated[
    str, Field(json_schema_extra={"enum": [ACTIVE, *sorted(path.stem for path in Path("recipes").glob("*.yaml"))]})
]
"""A name in recipes/ of the project that the flow was deployed from (the choices of the form), or ACTIVE."""


@dataclass(frozen=True)
class RunContext:
    """`home` is the project, `layout` the directory of the run, `run_id` the flow run's id, by which the processes of
    all nodes find their MLflow run."""

    home: Layout
    recipe: Recipe
    layout: Layout
    run_id: str


def open_run(project: str, recipe: str, overrides: tuple[str, ...], purpose: str = "") -> RunContext:
    """As `project_of`. Raises RecipeError."""
    home = Layout(Path(project).resolve())
    layout = project_of(home, recipe, overrides, purpose)
    loaded = load(layout.params)
    set_slots(loaded.threads)
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    os.environ["CASCADE_RUN_ID"] = str(context.flow_run.id)
    return RunContext(home, loaded, layout, str(context.flow_run.id))
