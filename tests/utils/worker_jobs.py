"""What the worker processes of the tests do."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

from cascade.errors import CascadeError
from cascade.utils.worker_process import messages, receive_file, reply


def answer(parent: Connection) -> None:
    for message in messages(parent):
        match message.split():
            case ["pid"]:
                reply(parent, os.getpid())
            case ["file"]:
                file = receive_file(parent)
                reply(parent, os.pread(file, 100, 0).decode())
                os.close(file)
            case ["fail", reason]:
                raise CascadeError(reason)
            case ["break", reason]:
                raise BrokenPipeError(reason)
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["work", path]:  # Without a look at the pipe.
                Path(path).write_text(str(os.getpid()))
                time.sleep(600)
