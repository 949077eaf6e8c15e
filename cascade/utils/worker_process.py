"""A worker process and the pipe to it: forked by the run's fork server, or spawned where there is none."""

import atexit
import gc
import importlib
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from cascade.errors import CascadeError
from cascade.utils.forked import ForkedProcess, fork
from cascade.utils.orphans import kill_with_parent


class WorkerProcess:
    """Calls `call` (MODULE:FUNCTION) with the worker's end of the pipe. The process ends when that returns, and with
    this process."""

    def __init__(self, call: str):
        self.pipe, worker_end = multiprocessing.Pipe()
        self._process: BaseProcess | ForkedProcess = fork(
            "cascade.utils.worker_process:work", call, files=[worker_end.fileno()]
        ) or _spawned(call, worker_end)
        worker_end.close()

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # It has ended: `receive` says so.
            self.pipe.send(message)

    def send_file(self, descriptor: int) -> None:
        """For `receive_file`."""
        with suppress(BrokenPipeError):
            send_handle(self.pipe, descriptor, None)

    def receive(self, job: object) -> Any:
        """What it replies next. Raises the CascadeError that it raised, or one that names `job` where it has ended."""
        try:
            result, failure = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise CascadeError(f"{job}: its process ended with status {code}; run it again") from None
        if failure is not None:
            raise CascadeError(failure)
        return result

    def finish(self) -> None:
        """Close the pipe, which ends `messages`, and wait for the process to end."""
        self.pipe.close()
        self._process.join()

    def kill(self) -> None:
        self._process.terminate()
        self._process.join()
        self.pipe.close()


def messages(parent: Connection) -> Iterator[Any]:
    """What the pipe sends until it is closed."""
    while True:
        try:
            message = parent.recv()
        except EOFError:
            return
        yield message


def reply(parent: Connection, result: Any) -> None:
    parent.send((result, None))


def receive_file(parent: Connection) -> int:
    """The worker's own descriptor of the file that was sent."""
    return recv_handle(parent)


def work(call: str, file: int) -> None:
    """A forked worker; `file` is the descriptor of its end of the pipe."""
    _work(call, Connection(file))


def _spawned(call: str, worker_end: Connection) -> BaseProcess:
    # Not forked: a process that has threads cannot be forked safely, and CUDA does not survive it.
    process = multiprocessing.get_context("spawn").Process(
        target=_spawned_work, args=(call, worker_end, os.getpid()), daemon=True
    )
    process.start()
    return process


def _spawned_work(call: str, parent: Connection, pid: int) -> None:
    kill_with_parent(pid)
    _work(call, parent)


def _work(call: str, parent: Connection) -> None:
    """A CascadeError is sent through the pipe; any other exception ends this process with its traceback."""
    atexit.register(gc.freeze)  # As in `cascade.cli`.
    module, _, function = call.partition(":")
    try:
        getattr(importlib.import_module(module), function)(parent)
    except CascadeError as error:
        parent.send((None, str(error)))
    except KeyboardInterrupt:
        pass  # The terminal sends it to every process.
