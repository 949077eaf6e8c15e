"""The fork server: a process that has imported the engine, and forks the processes of a run.

torch, transformers and MLflow take seconds to import, in every node and every worker process of an evaluation. Beside
the hours that nodes take on a GPU that is nothing; of the nano run's minutes it is a good part. So a run on CPUs has a
server (`server`); what its stages start finds it by an environment variable, and does without where there is none.

A client speaks through a socket: first the call to make and the files to make it with, later numbers of signals. The
server sends back the exit status. When a client is gone, its process is killed; when the server is, all are.
"""

import atexit
import importlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType
from typing import Any

from cascade.utils.orphans import kill_with_parent

ADDRESS = "CASCADE_FORK_SERVER"
"""Set for the processes of a run: where its server listens."""

IMPORTED = (
    "cascade.evaluation.checkpoint_runner",
    "cascade.policy.hf",
    "cascade.rollout.torch_engine.sampler",
    "cascade.training.on_policy",
    "cascade.training.sft",
    "cascade.environments.reasoning_gym",
    "transformers.models.nemotron_h.modeling_nemotron_h",
    "mlflow",
    "scipy.stats",
)
STANDARD = (0, 1, 2)
_LARGEST = 1 << 20

_forked = False
"""Whether this process is one that the server forked."""


@contextmanager
def server(environment: dict[str, str]) -> Iterator[None]:
    """Processes started in the block find a server, which ends with it, unless they would already, or there is a GPU.
    It has `environment` beside this process's own."""
    from cascade.launch.process_setup import has_gpu  # Not for clients, which are to start at once.

    if has_gpu() or ADDRESS in os.environ:
        yield
        return
    folder = tempfile.mkdtemp(prefix="cascade-")
    address = str(Path(folder) / "socket")
    # Listening already, so that a client that comes before all is imported waits for it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cascade.launch.fork_server", str(listener.fileno()), str(os.getpid())],
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[listener.fileno()],
        )
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        os.environ.pop(ADDRESS, None)
        process.kill()  # Its processes end with it.
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class ForkedProcess:
    """A process of the server's, as its client has it."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self.exitcode: int | None = None
        """As of a multiprocessing.Process: negative where a signal ended it."""

    def signal(self, number: int) -> None:
        with suppress(OSError):  # It has ended.
            self._connection.send(pickle.dumps(number))

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def join(self) -> None:
        if self.exitcode is None:
            status = _received(self._connection)
            # None: the server itself was killed, and its processes with it.
            self.exitcode = -signal.SIGKILL if status is None else status
            self._connection.close()


def fork(call: str, *arguments: Any, files: Sequence[int] = ()) -> ForkedProcess | None:
    """Have the server call `call`, MODULE:FUNCTION, with these arguments and then the descriptors that `files` have
    there. Directory, environment and standard files are this process's. None where there is no server."""
    if (address := os.environ.get(ADDRESS)) is None:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(address)
        request = pickle.dumps((call, arguments, dict(os.environ), os.getcwd()))
        socket.send_fds(connection, [request], [*STANDARD, *files])
    except OSError:
        connection.close()
        return None
    return ForkedProcess(connection)


def run_preloaded(call: str, arguments: list[str]) -> bool:
    """Whether a process of the server's has run `call`, MODULE:FUNCTION, with the arguments of this command line.
    Signals are passed on to it, and where it fails this one exits as it did. False in such a process itself."""
    if _forked or (process := fork(call, arguments)) is None:
        return False

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode if process.exitcode > 0 else 128 - process.exitcode)
    return True


def serve(file: int, parent: int) -> None:
    """Until this process or its parent is killed, fork what clients of the socket `file` ask for."""
    kill_with_parent(parent)
    listener = socket.socket(fileno=file)
    from cascade.launch import process_setup

    with process_setup.importing_engine():
        for module in IMPORTED:
            with suppress(ImportError):  # Whoever needs what is missing says so.
                importlib.import_module(module)
    running: dict[socket.socket, ForkProcess] = {}
    while True:
        ready = wait([listener, *running, *(process.sentinel for process in running.values())])
        for client, process in list(running.items()):
            if process.sentinel in ready:
                process.join()
                _send_status(client, process.exitcode)
                del running[client]
            elif client in ready and (number := _received(client)) is not None:
                _signal(process, number)
            elif client in ready:
                _signal(process, signal.SIGKILL, group=True)
        if listener in ready:
            client, _ = listener.accept()
            try:
                request, files, _, _ = socket.recv_fds(client, _LARGEST, 16)
            except OSError:
                request, files = b"", []
            if not request:  # It was killed before it could ask.
                client.close()
                continue
            ours = [listener, client, *running]
            process = get_context("fork").Process(target=_run_request, args=(request, files, ours, os.getpid()))
            process.start()
            for file in files:
                os.close(file)
            running[client] = process


def _signal(process: ForkProcess, number: int, group: bool = False) -> None:
    assert process.pid is not None
    if group:
        with suppress(ProcessLookupError):  # It leads no group yet.
            os.killpg(process.pid, number)
    os.kill(process.pid, number)  # Not reaped yet, so it is no other process.


def _send_status(client: socket.socket, status: int | None) -> None:
    with suppress(OSError):  # It is gone.
        client.send(pickle.dumps(status))
    client.close()


def _received(other: socket.socket) -> int | None:
    """The number that the other end sends; None where it is gone."""
    try:
        message = other.recv(_LARGEST)
    except OSError:
        return None
    return pickle.loads(message) if message else None


def _run_request(request: bytes, files: list[int], inherited: list[socket.socket], parent: int) -> None:
    global _forked
    _forked = True
    kill_with_parent(parent)
    os.setsid()
    for connection in inherited:
        connection.close()
    call, arguments, environment, directory = pickle.loads(request)
    for file, place in zip(files, STANDARD, strict=False):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    module, _, function = call.partition(":")
    try:
        getattr(importlib.import_module(module), function)(*arguments, *files[len(STANDARD) :])
    finally:
        atexit._run_exitfuncs()


if __name__ == "__main__":
    # By its name: what it forks imports this module too, and must find itself forked there.
    from cascade.launch import fork_server

    fork_server.serve(int(sys.argv[1]), int(sys.argv[2]))
