"""Jobs in parallel worker processes.

A small model decodes hardly faster on two cores than on one, because its matrix products are too small to split. Two
processes with one core each do.
"""

import atexit
import gc
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from cascade.errors import CascadeError
from cascade.launch.fork_server import ForkedProcess, fork

J = TypeVar("J")
T = TypeVar("T")

Begin = Callable[[], AbstractContextManager[Callable[[J], T]]]


def in_processes(count: int, begin: Begin[J, T], jobs: list[J]) -> Iterator[tuple[J, T]]:
    """Yield each job and its result in the order of completion, from a ProcessPool of at most `count` workers."""
    with ProcessPool(min(count, len(jobs)), begin) as pool:
        yield from pool.run(jobs)


class ProcessPool(Generic[J, T]):
    """Worker processes, started with their first job. Each enters `begin` once and calls the function that it yields
    for each job. With one worker, jobs run in this process. Workers end with the `with` block."""

    def __init__(self, count: int, begin: Begin[J, T]):
        self._count = count
        self._begin = begin
        self._workers: dict[Connection, multiprocessing.process.BaseProcess | ForkedProcess] = {}
        self._here = ExitStack()
        self._work: Callable[[J], T] | None = None

    def __enter__(self) -> "ProcessPool[J, T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            for worker, process in self._workers.items():
                worker.close()  # The worker then leaves `begin` and exits.
                process.join()
        for process in self._workers.values():
            process.terminate()
        for process in self._workers.values():
            process.join()
        self._here.__exit__(kind, error, trace)

    def run(self, jobs: list[J]) -> Iterator[tuple[J, T]]:
        """Yield each job and its result in the order of completion; jobs start in their order.

        Raises the CascadeError that a job raises, and a CascadeError where a worker process died.
        """
        if self._count < 2:
            for job in jobs:
                self._work = self._work or self._here.enter_context(self._begin())
                yield job, self._work(job)
            return
        pending = list(reversed(jobs))
        for _ in range(min(self._count, len(jobs)) - len(self._workers)):
            self._start()
        running: dict[Connection, J] = {}
        for worker in self._workers:
            if pending:
                running[worker] = pending.pop()
                worker.send(running[worker])
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                job = running.pop(ready)
                try:
                    result, failure = ready.recv()
                except EOFError:
                    self._workers[ready].join()
                    code = self._workers[ready].exitcode
                    raise CascadeError(f"{job}: its process ended with status {code}; run it again") from None
                if failure is not None:
                    raise CascadeError(failure)
                if pending:
                    running[ready] = pending.pop()
                    ready.send(running[ready])
                yield job, result

    def _start(self) -> None:
        connection, worker_end = multiprocessing.Pipe()
        process = fork("cascade.launch.process_pool:serve", files=[worker_end.fileno()]) or _spawned(worker_end)
        self._workers[connection] = process
        worker_end.close()
        connection.send(self._begin)


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
