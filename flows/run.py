"""`cascade run`: the flow, here and now, with its progress and its results on the terminal."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import click

from cascade.decisions.outcomes import gate_failures
from cascade.errors import CascadeError
from cascade.launch import fork_server
from cascade.launch.process_setup import thread_settings
from cascade.launch.ui_servers import set_environment, start_prefect
from cascade.layout import Layout
from cascade.recipe import PIPELINE, Recipe, load
from cascade.tracking.journal import system_journal
from cascade.tracking.mlflow_store import pipeline_run_id
from flows.unchanged import is_unchanged, note, read_by

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

LOOK = """
Where to look next
  report/index.html        tables and figures: open it in a browser
  cascade ui               Prefect's page of the run, MLflow's curves of every node
  dvc metrics show         numbers; dvc plots show: curves; dvc dag: the graph
  cascade chat NODE        talk with a checkpoint; cascade recipe show: what was run"""

BUSY = 15.0
"""Seconds that others may hold DVC's locks. A killed process holds its own until the system has reaped it."""


def run_pipeline(layout: Layout, began: float) -> None:
    """Build what is not up to date and print the result table. `began`: when the command did, Unix seconds. Raises
    CascadeError where a node or a gate fails."""
    recipe = load(layout.params)
    set_environment(layout)
    if is_unchanged(layout) or not (stale := stale_stages(layout)):
        _print_results(recipe, layout)
        click.echo(f"Nothing changed: every node of {recipe.name} is up to date ({time.time() - began:.0f} s).")
        if missed := gate_failures(recipe, layout):
            raise CascadeError("; ".join(missed))
        return
    click.echo(f"{recipe.name}: {len(stale)} of {len(recipe.ordered()) + len(recipe.training) + 1} stages to build")
    # All three take seconds: Prefect's server, what the nodes import, and the flow itself.
    server_answers = start_prefect(layout)
    with fork_server.server(thread_settings(recipe)):
        state = _run_flow(layout, server_answers)
    _print_results(recipe, layout)
    click.echo(f"{state.name} after {(time.time() - began) / 60:.1f} minutes.")
    system_journal(layout, PIPELINE).process("cascade run", pipeline_run_id(layout), began)
    if not state.is_completed():
        raise CascadeError(state.message)


def stale_stages(layout: Layout) -> list[str]:
    """DVC stages that are not up to date; where there are none, that is noted. Raises CascadeError where DVC cannot
    say."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + BUSY
    while True:
        try:
            with Repo(str(layout.root)) as repo:
                state = (files := read_by(repo)).state()
                if not (stale := sorted(repo.status())):
                    note(layout, files, state)
                return stale
        except DvcException as error:
            if not isinstance(error, LockError) or time.monotonic() > deadline:
                raise CascadeError(f"DVC: {' '.join(str(error).split())}") from None
        time.sleep(0.5)


def _run_flow(layout: Layout, server_answers: Callable[[], None]) -> "State":
    """Run the flow in this process; Ctrl-C and SIGTERM stop it and every stage under way. Raises CascadeError where
    Prefect's server cannot be reached."""
    from httpx import HTTPError

    from flows.cascade import cascade_flow

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    server_answers()
    try:
        return cascade_flow(project=str(layout.root), return_state=True)
    except (HTTPError, RuntimeError) as error:  # Prefect's own: what the flow raises is its state.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CascadeError(
            f"Prefect at {os.environ['PREFECT_API_URL']}: {reason}; start its server (`cascade ui`) or correct "
            "PREFECT_API_URL, and run again: it goes on from what was saved last"
        ) from None


def _print_results(recipe: Recipe, layout: Layout) -> None:
    from cascade.report.table import result_table

    click.echo(result_table(recipe, layout))
    click.echo(LOOK)
