"""Jobs in parallel worker processes.

A small model decodes hardly faster on two cores than on one, because its matrix products are too small to split. Two
processes with one core each do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from cascade.utils.worker_process import WorkerProcess, messages, reply

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
        self._workers: dict[Connection, WorkerProcess] = {}
        self._here = ExitStack()
        self._work: Callable[[J], T] | None = None

    def __enter__(self) -> "ProcessPool[J, T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            for worker in self._workers.values():
                worker.finish()
        for worker in self._workers.values():
            worker.kill()
        self._here.__exit__(kind, error, trace)

    def run(self, jobs: Sequence[J]) -> Iterator[tuple[J, T]]:
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
            worker = WorkerProcess("cascade.launch.process_pool:serve")
            self._workers[worker.pipe] = worker
            worker.send(self._begin)
        running: dict[Connection, J] = {}
        for pipe, worker in self._workers.items():
            if pending:
                running[pipe] = pending.pop()
                worker.send(running[pipe])
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                job = running.pop(ready)
                result = self._workers[ready].receive(job)
                if pending:
                    running[ready] = pending.pop()
                    self._workers[ready].send(running[ready])
                yield job, result


def serve(parent: Connection) -> None:
    """A worker: enters what the pipe sends first, and replies with the result of each job that follows."""
    with parent.recv()() as work:
        for job in messages(parent):
            reply(parent, work(job))
