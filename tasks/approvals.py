"""Nodes that wait for a person: the run pauses before them, until it is resumed on its page or cancelled."""

from prefect import get_run_logger
from prefect.flow_runs import pause_flow_run
from prefect.futures import PrefectFuture, wait

from cascade.layout import Layout
from cascade.recipe import Recipe
from tasks.artifacts import show_scores

PATIENCE = 14 * 24 * 3600
"""Seconds after which a run that nobody resumed fails. What it has built is kept."""

POLL = 5
"""Seconds between two looks whether it was resumed."""


def held_back(recipe: Recipe, approve: tuple[str, ...]) -> set[str]:
    """The nodes that need someone's approval, and all that follow from them. Raises RecipeError for an unknown one."""
    for name in approve:
        recipe.kind(name)
    held: set[str] = set()
    for name in recipe.ordered():
        if name in approve or held.intersection((*recipe.parents(name), *recipe.awaited(name))):
            held.add(name)
    return held


def wait_for_approval(name: str, needs: list[PrefectFuture], recipe: Recipe, layout: Layout) -> None:
    """Pause the run before a node, when all that it needs is there and its results are on the page. Where something
    that it needs has failed there is nothing to approve: the node is not started anyway."""
    wait(needs)
    if not all(future.state.is_completed() for future in needs):
        return
    show_scores(recipe, layout)
    get_run_logger().info("%s waits for approval: Resume starts it, Cancel ends the run", name)
    pause_flow_run(timeout=PATIENCE, poll_interval=POLL, key=f"approve-{name}")
