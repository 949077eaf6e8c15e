"""Runs `check(candidate)` in a sandbox of its own; the candidate's function runs in another and is called by pipe.

Only the row's own code runs here, so the verdict, one JSON object on stderr, is this process's word.
"""

from __future__ import annotations

import builtins
import json
import os
import sys

sys.path.insert(0, os.getcwd())
from values import decode, encode  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from typing import Any


class Gone(BaseException):
    """The candidate's process no longer answers, or not as agreed. No test can catch it by mistake."""


class Unsendable(BaseException):
    """The test passes something that is not plain data."""


def main() -> None:
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
    try:
        ask(calls, {"source": job["source"], "function": job["entry_point"], "prelude": False})
        loaded = receive(answers)
        if "loaded" not in loaded:
            return {"passed": False, "reason": f"does not load: {loaded.get('raised')}: {loaded.get('text')}"}
    except Gone:
        return {"passed": False, "reason": "ended while it was loaded"}
    names: dict[str, Any] = {"__name__": "check"}
    try:
        # Tests may use what the prompt defines.
        exec(compile(job["reference"], "reference.py", "exec"), names)
        exec(compile(job["test"], "test.py", "exec"), names)
        check = names["check"]
    except Exception as error:
        return {"broken": f"{type(error).__name__}: {error}"}

    def candidate(*args: Any, **kwargs: Any) -> Any:
        try:
            call = {"args": encode(args), "kwargs": encode(kwargs)}
        except (TypeError, RecursionError) as error:
            raise Unsendable(str(error)) from None
        ask(calls, call)
        result = receive(answers)
        if "value" in result:
            try:
                return decode(result["value"])
            except (ValueError, TypeError, RecursionError):
                raise Gone from None
        raised: Any = getattr(builtins, str(result.get("raised")), None)
        if not (isinstance(raised, type) and issubclass(raised, Exception)):
            raised = RuntimeError
        raise raised(f"{result.get('raised')}: {result.get('text')}")

    try:
        check(candidate)
    except Unsendable as error:
        return {"broken": str(error)}
    except Gone:
        return {"passed": False, "reason": "ended before all tests were run"}
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"passed": True, "reason": "all tests passed"}


def ask(calls: Any, message: dict[str, Any]) -> None:
    try:
        calls.write(json.dumps(message) + "\n")
        calls.flush()
    except BrokenPipeError:
        raise Gone from None


def receive(answers: Any) -> dict[str, Any]:
    try:
        result = json.loads(answers.readline())
    except (ValueError, RecursionError):
        raise Gone from None
    if not isinstance(result, dict):
        raise Gone
    return result


if __name__ == "__main__":
    main()
