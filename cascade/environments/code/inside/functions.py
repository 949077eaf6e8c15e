"""Runs in the sandbox beside a candidate's function: calls in on stdin, results out on stdout, a JSON line each.

The first line of the input is the job. The candidate may do to this process what it likes: all it can send are
values, and they are compared elsewhere.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # signal imports enum, which takes longer than a trivial call
import builtins
import json
import os
import resource
import sys
from importlib import import_module

sys.path.insert(0, os.getcwd())
from values import decode, encode  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from typing import Any

PRELUDE = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "typing"),
)
"""What NeMo Gym imports before a solution, every name of each module too."""


def namespace(prelude: bool) -> dict[str, Any]:
    # A module of its own: dataclasses and enumerations look theirs up.
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    names: dict[str, Any] = vars(module)
    if prelude:
        modules = {name: import_module(name) for name in PRELUDE}
        for module in modules.values():
            names.update({name: value for name, value in vars(module).items() if not name.startswith("_")})
        names.update({name: value for name, value in vars(builtins).items() if not name.startswith("_")})
        names.update(modules)
        sys.setrecursionlimit(50_000)
    return names


def with_exit() -> None:
    """`exit` and `quit`, which Python without `site` lacks."""
    from _sitebuiltins import Quitter  # type: ignore[import-not-found]

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D"))


def timed(begins: bool, seconds: float) -> None:
    """Give what is done from now on so much CPU time, and twice that of wall time; or stop the clock of the latter."""
    _signal.setitimer(_signal.ITIMER_REAL, 2 * seconds if begins else 0)
    if begins:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        # In whole seconds, up: no test may have less than its time.
        limit = int(usage.ru_utime + usage.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


def main() -> None:
    sys.set_int_max_str_digits(0)
    calls = os.fdopen(os.dup(0))
    results = os.fdopen(os.dup(1), "w")
    # What the candidate prints or reads must not get between.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    job = json.loads(calls.readline())
    if job.get("check"):
        from peer import Gone, Peer  # type: ignore[import-not-found]
    sys.path.remove(os.getcwd())
    with_exit()
    seconds = job["seconds"]
    timed(True, seconds)
    function: Any = None
    try:
        names = namespace(job["prelude"])
        # Not with this file's own __future__, by which annotations would be texts.
        exec(compile(job["source"], "answer.py", "exec", dont_inherit=True), names)
        holder = names["Solution"]() if "Solution" in names and job["function"] not in names else None
        function = getattr(holder, job["function"]) if holder else names[job["function"]]
        loaded: dict[str, Any] = {"loaded": True}
    except BaseException as error:
        loaded = {"raised": type(error).__name__, "text": str(error)[:300]}
    timed(False, seconds)
    answer(results, loaded)
    if job.get("check"):
        # The candidate's own objects are all open to its test.
        peer = Peer(calls, results, lambda it, name: True, {}, lambda begins: timed(begins, seconds))
        peer.objects[0] = function
        try:
            peer.serve()
        except Gone:
            return
    for line in calls:
        call = json.loads(line)
        timed(True, seconds)
        try:
            result = {"value": encode(function(*decode(call["args"])))}
        except BaseException as error:
            result = {"raised": type(error).__name__, "text": str(error)[:300]}
        timed(False, seconds)
        answer(results, result)


def answer(results: Any, value: dict[str, Any]) -> None:
    results.write(json.dumps(value) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
