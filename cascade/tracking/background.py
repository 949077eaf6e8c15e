"""Publishing while a node runs. MLflow being slow, away or not installed never stops or loses anything."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.progress import say
from cascade.recipe import Recipe
from cascade.tracking.journal import Journal, evaluation_journal, system_journal
from cascade.tracking.publisher import Publisher
from cascade.tracking.store import MADE_IN, pipeline_run_id
from cascade.tracking.system import SystemSampler

INTERVAL = 5.0
PATIENCE = 30.0
"""Seconds that the end of a node waits for a publication under way."""

_warned = False


def publish(recipe: Recipe, layout: Layout, nodes: Iterable[str]) -> bool:
    """Replay the journals of these nodes, and the report's, into MLflow, and end the pipeline's run.

    Nodes that have none are passed over. Says once where MLflow fails; returns whether all is there. What is
    missing follows with the next call, of any process.
    """
    try:
        publisher = Publisher(recipe, layout)
        for node in nodes:
            if publisher.has_journal(node):
                publisher.node(node)
        publisher.report()
        publisher.finish()
    except Exception as error:
        warn(error)
        return False
    return True


@contextmanager
def live(
    recipe: Recipe, layout: Layout, node: str, evaluation: bool = False, began: float | None = None
) -> Iterator[None]:
    """While the block runs, publish the node's journal every few seconds from a thread of its own, with how the
    machine fares; at its end, say in the journal how it ended and in which pipeline run, and publish the rest.
    `began`: when the process began to work, Unix seconds; by default now."""
    began = began or time.time()
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(recipe, layout, node, stop), name="mlflow", daemon=True)
    thread.start()
    pipeline = pipeline_run_id(layout)
    journal = evaluation_journal(layout, node) if evaluation else Journal(layout.journal(node))
    try:
        yield
        if not evaluation:
            journal.tags({MADE_IN: pipeline})
        journal.status("finished")
    except BaseException:
        with suppress(CascadeError):  # A full disk has no room for that either: what is raised says so.
            journal.status("failed")
        raise
    finally:
        stop.set()
        thread.join(PATIENCE)
        system_journal(layout, node).process(f"{node}, evaluation" if evaluation else node, pipeline, began)


def _follow(recipe: Recipe, layout: Layout, node: str, stop: threading.Event) -> None:
    """Publish until told to stop, and then once more."""
    publisher: Publisher | None = None
    pause = INTERVAL
    started = time.time()
    machine, journal = SystemSampler(layout.root), system_journal(layout, node)
    while True:
        stopping = stop.wait(pause)
        began = time.monotonic()
        try:
            journal.metrics(machine.sample(), step=0)
            publisher = publisher or Publisher(recipe, layout)
            # Before the process has said what it is made from, the journal is of an earlier run.
            if stopping or publisher.has_journal(node, since=started):
                publisher.node(node, running=not stopping)
        except Exception as error:
            warn(error)
            publisher = None
        if stopping:
            return
        # At most a tenth of the time goes into publishing, however long the journal has grown.
        pause = max(INTERVAL, 10 * (time.monotonic() - began))


def warn(error: Exception) -> None:
    """Say, once a process, that MLflow cannot be used and that nothing is lost by it."""
    global _warned
    if _warned:
        return
    _warned = True
    if isinstance(error, ImportError):
        reason = "MLflow is not installed here"
    else:
        reason = f"MLflow at {os.environ.get('MLFLOW_TRACKING_URI', 'mlflow/mlflow.db')}: {_first_line(error)}"
    say(f"{reason}; measurements stay in .cascade/journal and are published later")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # SQLAlchemy says how it came to the database's own error before it names that.
    return next((line for line in lines if line.startswith("(") and "Error) " in line), lines[0])[:200]
