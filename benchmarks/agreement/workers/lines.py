"""What every worker does: a request a line in, an answer a line out. Needs Python 3.11 and nothing else."""

import json
import os
import sys

# Peers print as they are imported: all but the answers goes to standard error.
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(judge):
    """Write {"id", "reward"}, or {"id", "error"} where the peer raised, for each {"id", …} of stdin.

    `judge` gets the request without its id.
    """
    for line in sys.stdin:
        request = json.loads(line)
        number = request.pop("id")
        try:
            found = {"reward": float(judge(**request))}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
        _ANSWERS.write(json.dumps({"id": number, **found}) + "\n")
        _ANSWERS.flush()


def without_init(package):
    """Make `package` importable without running its `__init__`, which loads far more than a verifier needs."""
    import importlib.util
    import types

    first, *rest = package.split(".")
    place = os.path.dirname(importlib.util.find_spec(first).origin)
    for depth in range(len(rest) + 1):
        module = types.ModuleType(".".join([first, *rest[:depth]]))
        module.__path__ = [os.path.join(place, *rest[:depth])]
        sys.modules[module.__name__] = module
