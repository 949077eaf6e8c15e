"""Approval of nodes: the run pauses before them, until it is resumed on its page or cancelled."""

from prefect import get_run_logger
from prefect.flow_runs import pause_flow_run
from prefect.futures import PrefectFuture, wait

from cascade.layout import Layout
from cascade.recipe import Recipe
from tasks.artifacts import show_scores

PATIENCE = 14 * 24 * 3600
"""Seconds after which a paused run fails. Built nodes are kept."""

POLL = 5
"""Seconds between two polls of the run's state."""


def held_back(recipe: Recipe, approve: tuple[str, ...]) -> set[str]:
    """The nodes that need approval, and all that depend on them. Raises RecipeError for an unknown one."""
    for name in approve:
        recipe.kind(name)
    unapproved: set[str] = set()
    for name in recipe.ordered():
        if name in approve or unapproved.intersection((*recipe.parents(name), *recipe.awaited(name))):
            unapproved.add(name)
    return unapproved


def wait_for_approval(name: str, needs: list[PrefectFuture], recipe: Recipe, layout: Layout) -> None:
    """Pause the run before a node, after its dependencies are built and their results are on the page. Returns at once
    where a dependency failed, because the node cannot start."""
    wait(needs)
    if not all(future.state.is_completed() for future in needs):
        return
    show_scores(recipe, layout)
    get_run_logger().info("%s waits for approval: Resume starts it, Cancel ends the run", name)
    pause_flow_run(timeout=PATIENCE, poll_interval=POLL, key=f"approve-{name}")
