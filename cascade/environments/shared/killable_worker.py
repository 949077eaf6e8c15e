"""Calls into library code that may hang, crash or eat memory on what a model wrote, in a process that can be killed.

A worker is a Python process with an empty environment, a memory limit and no writable files. It answers one
call at a time and is reused. Before each call it arms an alarm whose default action ends the process, so
neither a tight loop in C code nor a parent that has died leaves it running. This is a guard for library code,
not a sandbox for programs: nothing that a model wrote may be executed here.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from typing import Any

MEMORY_BYTES = 4 << 30


class WorkerDied(Exception):
    """The process ended without an answer, and not by its time limit."""


def call(target: str, *args: Any, seconds: int) -> Any:
    """`target` ("module:function") called with JSON arguments, its JSON result.

    An exception in the target comes back as None: on a model's text that is "no", as in the libraries' own
    verifiers. Raises TimeoutError, and WorkerDied when the process crashed. Any thread may call.
    """
    with _slots:
        worker = _take()
        try:
            result = worker.ask({"target": target, "args": args, "seconds": seconds})
        except BaseException:
            worker.kill()
            raise
        _idle.append(worker)
        return result


class _Worker:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"},
            text=True,
        )

    def ask(self, request: dict) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        if code == -signal.SIGALRM:
            raise TimeoutError
        raise WorkerDied(f"the verifier process ended with exit code {code}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


_slots = threading.BoundedSemaphore(os.cpu_count() or 1)
_idle: list[_Worker] = []


def _take() -> _Worker:
    while _idle:
        try:
            worker = _idle.pop()
        except IndexError:
            break
        if worker.process.poll() is None:
            return worker
        worker.kill()
    return _Worker()


@atexit.register
def _stop_all() -> None:
    while _idle:
        _idle.pop().kill()


# A forked child must not talk through its parent's pipes.
os.register_at_fork(after_in_child=_idle.clear)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in sys.stdin:
        request = json.loads(line)
        module, _, function = request["target"].partition(":")
        target = getattr(importlib.import_module(module), function)
        signal.alarm(request["seconds"])
        try:
            result = target(*request["args"])
        except Exception:
            result = None
        signal.alarm(0)
        # A pipe is not subject to RLIMIT_FSIZE.
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
