"""Runs `check(candidate)` in a sandbox of its own; the candidate's function runs in another and is called by pipe.

Only the row's own code runs here, so the verdict, one JSON object on stderr, is this process's word.
"""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, os.getcwd())
from peer import Gone, Peer, Unsendable  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    sys.set_int_max_str_digits(0)
    answers = os.fdopen(os.dup(0))
    calls = os.fdopen(os.dup(1), "w")
    verdict = os.fdopen(os.dup(2), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    json.dump(judge(job, calls, answers), verdict)
    verdict.flush()
    os._exit(0)


def judge(job: dict[str, Any], calls: Any, answers: Any) -> dict[str, Any]:
    module = type(sys)("check")
    sys.modules["check"] = module
    names: dict[str, Any] = vars(module)
    peer = Peer(answers, calls, is_open, names)
    try:
        what = {"source": job["source"], "function": job["entry_point"], "prelude": False, "check": True}
        peer.send(what | {"seconds": job["seconds"]})
        loaded = peer.receive()
        if "loaded" not in loaded:
            return {"passed": False, "reason": f"does not load: {loaded.get('raised')}: {loaded.get('text')}"}
    except Gone:
        return {"passed": False, "reason": "ended while it was loaded"}
    asked = False

    def candidate(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked = True
        return peer.call(0, *args, **kwargs)

    candidate.__name__ = candidate.__qualname__ = job["entry_point"]
    try:
        # Tests may use what the prompt defines; the function that is tested is the candidate's, also by its name.
        exec(compile(job["reference"], "reference.py", "exec", dont_inherit=True), names)
        names[job["entry_point"]] = candidate
        exec(compile(job["test"], "test.py", "exec", dont_inherit=True), names)
        check = names["check"]
    except Gone:
        return {"passed": False, "reason": "ended before all tests were run"}
    except BaseException as error:
        if asked and not isinstance(error, Unsendable):
            return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:300]}
        return {"broken": f"{type(error).__name__}: {error}"[:300]}
    try:
        check(candidate)
    except Unsendable as error:
        return {"broken": str(error)}
    except Gone:
        return {"passed": False, "reason": "ended before all tests were run"}
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"passed": True, "reason": "all tests passed"}


def is_open(it: Any, name: str) -> bool:
    """Whether the candidate may have an attribute: of instances of the test's and the prompt's own classes, what they
    hold and can do; of functions, frames and modules nothing."""
    kind = type(it)
    return kind.__module__ == "check" and (name in getattr(it, "__dict__", ()) or name in vars(kind))


if __name__ == "__main__":
    main()
