"""Evaluates the expressions of tests within the sandbox, next to code that a model has edited.

Runs as a script that knows nothing of this package: it reads a JSON list of [setup, expression] from standard input
and writes one line each, in order, with the expression's value or the exception's name. It decides nothing.
"""

import json
import os
import sys
from typing import Any

REPOSITORY = "repository"
"""Folder of the files under test, below the working directory."""


def as_text(value: object) -> str:
    """One line for a value of built-in types: equal texts for equal values of the same types throughout."""
    return json.dumps(_plain(value), ensure_ascii=True)


def main() -> None:
    checks = json.load(sys.stdin)
    answers = os.dup(1)
    # What the code under test prints must not come among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, os.path.join(os.getcwd(), REPOSITORY))
    for setup, expression in checks:
        try:
            namespace = {"__name__": "tests"}
            exec(setup, namespace)
            line = as_text(eval(expression, namespace))
        except BaseException as error:
            line = f"raises {type(error).__name__}"
        os.write(answers, f"{line}\n".encode())
    # Threads and handlers that the code has left behind have no say any more.
    os._exit(0)


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_plain(item) for item in value]
    if kind is tuple:
        return {"tuple": [_plain(item) for item in value]}
    if kind in (set, frozenset):
        return {kind.__name__: sorted(as_text(item) for item in value)}
    if kind is dict:
        return {"dict": sorted([as_text(key), as_text(item)] for key, item in value.items())}
    return {"object": kind.__name__}


if __name__ == "__main__":
    main()
