"""Processes that a run's fork server (`cascade.launch.fork_server`) forks, as its clients see them."""

import os
import pickle
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

ADDRESS = "CASCADE_FORK_SERVER"
"""Environment variable of a run's processes: the address of its server."""

STANDARD = (0, 1, 2)
LARGEST = 1 << 20
"""Bytes of a request."""


class ForkedProcess:
    """A client's handle of a process that the server forked."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self.exitcode: int | None = None
        """As in multiprocessing.Process: negative where a signal ended it."""

    def signal(self, number: int) -> None:
        with suppress(OSError):  # It has ended.
            self._connection.send(pickle.dumps(number))

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def join(self) -> None:
        if self.exitcode is None:
            status = received(self._connection)
            # None: the server itself was killed, and its processes with it.
            self.exitcode = -signal.SIGKILL if status is None else status
            self._connection.close()


def fork(call: str, *arguments: Any, files: Sequence[int] = ()) -> ForkedProcess | None:
    """Call `call` (MODULE:FUNCTION) in a process that the server forks, with these arguments, followed by the file
    descriptors of `files` in that process. Directory, environment and standard files are this process's. None where
    there is no server."""
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


def received(peer: socket.socket) -> int | None:
    """The number that the peer sends; None where it has closed."""
    try:
        message = peer.recv(LARGEST)
    except OSError:
        return None
    return pickle.loads(message) if message else None
