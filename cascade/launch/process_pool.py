"""Jobs done side by side by worker processes.

A small model decodes hardly faster on two cores than on one: its products are too small to share. Two of them side by
side do.
"""

import atexit
import gc
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from cascade.errors import CascadeError
from cascade.launch.fork_server import ForkedProcess, fork

T = TypeVar("T")

Begin = Callable[[], AbstractContextManager[Callable[[str], T]]]


def in_processes(count: int, begin: Begin[T], jobs: list[str]) -> Iterator[tuple[str, T]]:
    """Each job and its result, as it ends. `begin` is entered once a worker, and what it gives called once a job; the
    jobs are begun in their order. One worker is this process. All others end with the iteration, whatever ends it.

    Raises the CascadeError that a job raises, and one where a worker ended otherwise.
    """
    if min(count, len(jobs)) < 2:
        if jobs:
            with begin() as work:
                yield from ((job, work(job)) for job in jobs)
        return
    waiting = list(reversed(jobs))
    workers: dict[Connection, multiprocessing.process.BaseProcess | ForkedProcess] = {}
    doing: dict[Connection, str] = {}
    try:
        for _ in range(min(count, len(jobs))):
            ours, theirs = multiprocessing.Pipe()
            workers[ours] = fork("cascade.launch.process_pool:serve", files=[theirs.fileno()]) or _spawned(theirs)
            theirs.close()
            doing[ours] = waiting.pop()
            ours.send(begin)
            ours.send(doing[ours])
        while doing:
            for worker in wait(list(doing)):
                assert isinstance(worker, Connection)
                job = doing.pop(worker)
                try:
                    found, wrong = worker.recv()
                except EOFError:
                    workers[worker].join()
                    code = workers[worker].exitcode
                    raise CascadeError(f"{job}: its process ended with status {code}; run it again") from None
                if wrong is not None:
                    raise CascadeError(wrong)
                if waiting:
                    doing[worker] = waiting.pop()
                    worker.send(doing[worker])
                yield job, found
        for worker, process in workers.items():
            worker.close()  # Tells it to leave `begin` in its own way.
            process.join()
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.join()


def _spawned(parent: Connection) -> multiprocessing.process.BaseProcess:
    # Not forked: a process that has threads cannot be forked safely, and CUDA does not survive it.
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(parent,), daemon=True)
    process.start()
    return process


def serve(file: int) -> None:
    """A worker whose pipe is that descriptor."""
    _serve(Connection(file))


def _serve(parent: Connection) -> None:
    """Do what comes through the pipe, `begin` and then jobs, until it is closed. Of errors, those that a user can mend
    are told through the pipe; any other ends this process with its traceback."""
    atexit.register(gc.freeze)  # As `cascade.cli` has it.
    try:
        with parent.recv()() as work:
            while True:
                try:
                    job = parent.recv()
                except EOFError:
                    return
                parent.send((work(job), None))
    except CascadeError as error:
        parent.send((None, str(error)))
    except KeyboardInterrupt:
        pass  # The terminal tells it to every process.
