"""What an agent is told about its tests: one that fails, and how many do."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascade.environments.swe_agentless.checks import Outcome


@dataclass(frozen=True)
class Result:
    call: str
    """The tested expression."""
    fault: str
    """What it does wrong (`returns 3`, `raises IndexError`); empty where the test passes."""
    expected: str
    """As Python writes it."""


def report(results: Sequence[Result]) -> str:
    failed = [result for result in results if result.fault]
    passed = len(results) - len(failed)
    if not failed:
        return f"{passed} passed"
    first = failed[0]
    return f"FAILED {first.call} {first.fault}, expected {first.expected}\n{len(failed)} failed, {passed} passed"


def result_of(outcome: Outcome) -> Result:
    check, seen = outcome.check, outcome.seen
    if outcome.passed:
        fault = ""
    elif seen is None:
        fault = f"gives no value ({outcome.ended})"
    else:
        fault = seen if seen.startswith("raises ") else f"returns {as_python(seen)}"
    return Result(check.expression, fault, as_python(check.expected))


def as_python(text: str) -> str:
    """A value that `runner.as_text` wrote, as Python writes it; anything else, as code under test may forge it, as it
    is."""
    try:
        return _python(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return text


def _python(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(map(_python, value))}]"
        case {"tuple": [one]}:
            return f"({_python(one)},)"
        case {"tuple": items}:
            return f"({', '.join(map(_python, items))})"
        case {"set": items} | {"frozenset": items}:
            kind = "set" if "set" in value else "frozenset"
            inside = f"{{{', '.join(map(as_python, items))}}}" if items else ""
            return inside if kind == "set" and items else f"{kind}({inside})"
        case {"dict": items}:
            return f"{{{', '.join(f'{as_python(key)}: {as_python(item)}' for key, item in items)}}}"
        case {"object": kind}:
            return f"a {kind}"
    return repr(value)
