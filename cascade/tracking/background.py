"""Publishing while a node runs. A slow, unreachable or missing MLflow neither stops a node nor loses data."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking.journal import Journal, evaluation_journal, system_journal
from cascade.tracking.mlflow_store import MADE_IN, is_refusal, pipeline_run_id
from cascade.tracking.publisher import Publisher
from cascade.tracking.system_metrics import SystemSampler
from cascade.utils.progress import say

INTERVAL = 5.0
PATIENCE = 30.0
"""Seconds that the end of a node waits for a publication in progress."""

FOLLOWED = "CASCADE_FOLLOWED_BY"
"""Environment variable of a node's processes: the process id of the publisher of their journals."""

_UNLISTED = "possible DNS rebinding attack"
"""Part of MLflow's error for a host name that its server does not allow."""

_warned: set[bool] = set()
"""Kinds of warnings already printed (True: of a refusal); each is printed once."""


def publish(recipe: Recipe, layout: Layout, nodes: Iterable[str]) -> bool:
    """Replay the journals of these nodes, and the report's, into MLflow, and end the pipeline's run.

    Nodes without a journal are skipped. Warns once where MLflow fails; returns whether everything is published. The
    rest is published by the next call, of any process. A node that MLflow refuses does not block the others.
    """
    everything = True
    try:
        publisher = Publisher(recipe, layout)
        for node in nodes:
            if publisher.has_journal(node):
                try:
                    publisher.node(node)
                except Exception as error:
                    if not is_refusal(error):
                        raise
                    everything = False
                    warn(error)
        publisher.report()
        publisher.finish()
    except Exception as error:
        warn(error)
        return False
    return everything


@contextmanager
def live(
    recipe: Recipe, layout: Layout, node: str, evaluation: bool = False, began: float | None = None
) -> Iterator[None]:
    """While the block runs, log system metrics every few seconds; at its end, write to the journal how it ended and in
    which pipeline run. The journal is published meanwhile, by this process unless the one that started it does so
    (`following`). `began`: start of the process in Unix seconds, by default now."""
    began = began or time.time()
    pipeline = pipeline_run_id(layout)
    journal = evaluation_journal(layout, node) if evaluation else Journal(layout.journal(node))
    machine, noted = SystemSampler(layout.root), system_journal(layout, node)

    def note() -> None:
        noted.metrics(machine.sample(), step=0)

    publications = [] if FOLLOWED in os.environ else [_Publication(recipe, layout, node)]
    try:
        with _repeated(note, *publications):
            try:
                yield
                if not evaluation:
                    journal.tags({MADE_IN: pipeline})
                journal.status("finished")
            except BaseException:
                with suppress(CascadeError):  # On a full disk this fails too; the exception being raised reports it.
                    journal.status("failed")
                raise
    finally:
        noted.process(f"{node}, evaluation" if evaluation else node, pipeline, began)


@contextmanager
def following(recipe: Recipe, layout: Layout, node: str) -> Iterator[dict[str, str]]:
    """Publish the journals of a node while the block runs, so that its processes need not import MLflow. Yields the
    environment variables that tell them so."""
    with _repeated(_Publication(recipe, layout, node)):
        yield {FOLLOWED: str(os.getpid())}


class _Publication:
    """Publishes what a node's processes wrote since this object was created; older entries are of an earlier run."""

    def __init__(self, recipe: Recipe, layout: Layout, node: str):
        self._of = (recipe, layout)
        self._node = node
        self._started = time.time()
        self._publisher: Publisher | None = None

    def __call__(self) -> None:
        publisher, self._publisher = self._publisher or Publisher(*self._of), None
        if publisher.has_journal(self._node, since=self._started):
            # A killed process wrote no status, and will be run again.
            publisher.node(self._node, running=not publisher.has_ended(self._node, since=self._started))
        self._publisher = publisher  # After an exception the next call reconnects.


@contextmanager
def _repeated(*works: Callable[[], None]) -> Iterator[None]:
    """Call these every few seconds while the block runs, in a thread, and once more at its end."""
    stop = threading.Event()
    thread = threading.Thread(target=_repeat, args=(works, stop), name="mlflow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)


def _repeat(works: tuple[Callable[[], None], ...], stop: threading.Event) -> None:
    pause, last = INTERVAL, False
    while not last:
        last = stop.wait(pause)
        began = time.monotonic()
        for work in works:
            try:
                work()
            except Exception as error:
                warn(error)
        # At most a tenth of the time goes into publishing, however long the journal has grown.
        pause = max(INTERVAL, 10 * (time.monotonic() - began))


def warn(error: Exception) -> None:
    """Warn, once in each process, that MLflow cannot be used and that the journal keeps the data; and once what it
    refuses."""
    refused = is_refusal(error)
    if refused in _warned:
        return
    _warned.add(refused)
    place = f"MLflow at {os.environ.get('MLFLOW_TRACKING_URI', 'mlflow/mlflow.db')}"
    if refused:
        remedy = "start it with --allowed-hosts of this name and port" if _UNLISTED in str(error) else "correct that"
        say(f"{place} refuses: {_first_line(error)}; {remedy} and run again: it stays in .cascade/journal till then")
        return
    reason = "MLflow is not installed here" if isinstance(error, ImportError) else f"{place}: {_first_line(error)}"
    say(f"{reason}; measurements stay in .cascade/journal and are published later")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # SQLAlchemy says how it came to the database's own error before it names that.
    return next((line for line in lines if line.startswith("(") and "Error) " in line), lines[0])[:200]
