"""Jobs in parallel worker processes.

A small model decodes hardly faster on two cores than on one, because its matrix products are too small to split. Two
processes with one core each do.
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
    """Yield each job and its result in the order of completion. Each worker enters `begin` once and calls the function
    that it yields for each job; jobs start in their order. With one worker, jobs run in this process. Workers end with
    the iteration.

    Raises the CascadeError that a job raises, and a CascadeError where a worker process died.
    """
    if min(count, len(jobs)) < 2:
        if jobs:
            with begin() as work:
                yield from ((job, work(job)) for job in jobs)
        return
    pending = list(reversed(jobs))
    workers: dict[Connection, multiprocessing.process.BaseProcess | ForkedProcess] = {}
    running: dict[Connection, str] = {}
    try:
        for _ in range(min(count, len(jobs))):
            connection, worker_end = multiprocessing.Pipe()
            process = fork("cascade.launch.process_pool:serve", files=[worker_end.fileno()]) or _spawned(worker_end)
            workers[connection] = process
            worker_end.close()
            running[connection] = pending.pop()
            connection.send(begin)
            connection.send(running[connection])
        while running:
            for worker in wait(list(running)):
                assert isinstance(worker, Connection)
                job = running.pop(worker)
                try:
                    result, error = worker.recv()
                except EOFError:
                    workers[worker].join()
                    code = workers[worker].exitcode
                    raise CascadeError(f"{job}: its process ended with status {code}; run it again") from None
                if error is not None:
                    raise CascadeError(error)
                if pending:
                    running[worker] = pending.pop()
                    worker.send(running[worker])
                yield job, result
        for worker, process in workers.items():
            worker.close()  # The worker then leaves `begin` and exits.
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
    """A worker process; `file` is the descriptor of its pipe."""
    _serve(Connection(file))


def _serve(parent: Connection) -> None:
    """Run what the pipe sends, `begin` and then jobs, until it is closed. A CascadeError is sent back through the pipe;
    any other exception ends this process with its traceback."""
    atexit.register(gc.freeze)  # As in `cascade.cli`.
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
        pass  # The terminal sends it to every process.
