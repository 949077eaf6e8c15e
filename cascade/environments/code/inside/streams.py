"""Runs a program once for each input, in a process of its own each time: a JSON line with its output for each.

The job, a JSON object on stdin, has `parts`, each with `inputs`, `seconds` of CPU time for each and `memory` in bytes
of address space or null; `room` (characters of output); and for Python `source` and `prelude`, else the program is the
file `program`. Of a part nothing is run after the first input that goes wrong. Expected outputs are not here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # signal imports enum, which takes longer than a trivial program
import json
import os
import resource
import select
import sys

sys.path.insert(0, os.getcwd())
from functions import answer, namespace, with_exit  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

STACK_BYTES = 64 << 20
"""Recursion in C++ is often deep."""
SIGKILL, SIGXCPU, SIGPROF = 9, 24, 27


def main() -> None:
    sys.set_int_max_str_digits(0)
    job = json.loads(os.fdopen(os.dup(0), encoding="utf-8").read())
    results = os.fdopen(os.dup(1), "w")
    sys.path.remove(os.getcwd())
    code: CodeType | None = None
    names: dict[str, Any] = {}
    if "source" in job:
        names = namespace(job["prelude"])
        with_exit()
        try:
            code = compile(job["source"], "answer.py", "exec", dont_inherit=True)
        except BaseException as error:
            answer(results, {"status": f"does not compile: {type(error).__name__}: {error}"[:300]})
            return
    else:
        os.chmod("program", 0o700)
    for part in job["parts"]:
        for text in part["inputs"]:
            line = run(job, part, text, code, names)
            answer(results, line)
            if line["status"]:
                break


def run(job: dict[str, Any], part: dict[str, Any], text: str, code: CodeType | None, names: dict[str, Any]) -> Any:
    """What the program does with one input."""
    given, taken, told = (os.open(".", os.O_TMPFILE | os.O_RDWR) for _ in range(3))
    with open(given, "w", encoding="utf-8", errors="replace", closefd=False) as file:
        file.write(text)
    os.lseek(given, 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        become_program(job, part, given, taken, told)
        exec(code, names | {"__name__": "__main__"})  # type: ignore[arg-type]
        sys.exit()
    status = wait(child, part["seconds"])
    output = content(taken, job["room"] + 1)
    if not status and len(output) > job["room"]:
        status = "writes far more than is asked for"
    complaint = content(told, 4000)[-300:]
    for descriptor in (given, taken, told):
        os.close(descriptor)
    return {"status": status, "output": "" if status else output, "error": complaint}


def become_program(job: dict[str, Any], part: dict[str, Any], given: int, taken: int, told: int) -> None:
    """In the forked child: its streams and limits. Does not return where the program is not Python."""
    os.setsid()
    for descriptor, stream in ((given, 0), (taken, 1), (told, 2)):
        os.dup2(descriptor, stream)
    os.closerange(3, 1 << 20)
    # The timer counts fractions of a second; the limit, in whole ones, is for a program that stops the timer.
    whole = int(part["seconds"]) + (part["seconds"] % 1 > 0)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    if most == resource.RLIM_INFINITY or whole < most:
        resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    _signal.setitimer(_signal.ITIMER_PROF, part["seconds"])
    if part["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (part["memory"], part["memory"]))
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard == resource.RLIM_INFINITY or hard >= STACK_BYTES:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))
    if "source" not in job:
        os.execv("./program", ["./program"])


def wait(child: int, seconds: float) -> str:
    """Empty, or why the program has not ended well. It has `seconds` of CPU time, and of wall time twice that, or two
    seconds more."""
    ended = os.pidfd_open(child)
    in_time = bool(select.select([ended], [], [], max(2 * seconds, seconds + 2))[0])
    os.close(ended)
    try:  # noqa: SIM105 (contextlib takes long to import)
        os.killpg(child, SIGKILL)
    except ProcessLookupError:
        pass
    _, status, usage = os.wait4(child, 0)
    if usage.ru_utime + usage.ru_stime > seconds:
        return "takes too long (CPU time)"
    if not in_time:
        return "takes too long (wall time)"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "takes too long (CPU time)" if number in (SIGXCPU, SIGPROF) else f"ends by signal {number}"
    return f"ends with exit code {os.WEXITSTATUS(status)}" if status else ""


def content(descriptor: int, most: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(most).decode(errors="replace")


if __name__ == "__main__":
    main()
