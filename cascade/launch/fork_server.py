"""The fork server: a process that has imported torch, transformers and MLflow, and forks the processes of a run.

These imports take seconds in every node and every worker process of an evaluation. Next to hours on a GPU this does
not matter; of the minutes of the nano run it is a large part. So a run on CPUs starts a server (`server`). Its
processes find the server by an environment variable, and import for themselves where there is none.

A client sends through a socket first the call and its file descriptors, later signal numbers; the server answers with
the exit status. When a client ends, its process is killed; when the server ends, all are.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

from cascade.utils.forked import ADDRESS, LARGEST, STANDARD, fork, received
from cascade.utils.orphans import kill_with_parent

IMPORTED = (
    "cascade.evaluation.checkpoint_runner",
    "cascade.policy.hf",
    "cascade.rollout.torch_engine.processes",
    "cascade.training.on_policy",
    "cascade.training.sft",
    "cascade.environments.reasoning_gym",
    "transformers.models.nemotron_h.modeling_nemotron_h",
    "mlflow",
    "scipy.stats",
)

_forked = False
"""Whether the server forked this process."""


@contextmanager
def server(environment: dict[str, str]) -> Iterator[None]:
    """Start a fork server for the processes that the block starts, and stop it at the end; none where there is one
    already, or a GPU. `environment` is added to this process's environment."""
    from cascade.launch.process_setup import has_gpu  # Imported here, because clients must start fast.

    if has_gpu() or ADDRESS in os.environ:
        yield
        return
    folder = tempfile.mkdtemp(prefix="cascade-")
    address = str(Path(folder) / "socket")
    # It listens before the imports are done, so that early clients wait for them.
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


def run_preloaded(call: str, arguments: list[str]) -> bool:
    """Run `call` (MODULE:FUNCTION) with the arguments of this command line in a process that the server forks, and
    return whether it did. Signals are forwarded; where the process fails, this one exits with its status. False where
    there is no server, and in a process that the server forked."""
    if _forked or (process := fork(call, arguments)) is None:
        return False

    def forward_signal(number: int, frame: FrameType | None) -> None:
        process.signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward_signal)
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode if process.exitcode > 0 else 128 - process.exitcode)
    return True


def serve(file: int, parent: int) -> None:
    """Serve the clients of the socket `file` until this process or its parent is killed."""
    kill_with_parent(parent)
    listener = socket.socket(fileno=file)
    from cascade.launch import process_setup

    with process_setup.importing_engine():
        for module in IMPORTED:
            with suppress(ImportError):  # The node that needs the module reports it.
                importlib.import_module(module)
    running: dict[socket.socket, ForkProcess] = {}
    while True:
        ready = wait([listener, *running, *(process.sentinel for process in running.values())])
        for client, process in list(running.items()):
            if process.sentinel in ready:
                process.join()
                _send_status(client, process.exitcode)
                del running[client]
            elif client in ready and (number := received(client)) is not None:
                _signal(process, number)
            elif client in ready:
                _signal(process, signal.SIGKILL, group=True)
        if listener in ready:
            client, _ = listener.accept()
            try:
                request, files, _, _ = socket.recv_fds(client, LARGEST, 16)
            except OSError:
                request, files = b"", []
            if not request:  # The client was killed before it sent a request.
                client.close()
                continue
            inherited = [listener, client, *running]
            process = get_context("fork").Process(target=_run_request, args=(request, files, inherited, os.getpid()))
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
    # Imported by its name, so that `_forked` is set in the module that forked processes import.
    from cascade.launch import fork_server

    fork_server.serve(int(sys.argv[1]), int(sys.argv[2]))
