"""Tests that run without a container, and how their result is kept from the code under test.

A test is a pytest function whose last statement is `assert EXPRESSION == VALUE`, VALUE a literal; what stands before
it, and the file's imports and assignments, prepare it. Only the preparation and EXPRESSION go into the sandbox. The
value comes back as text and is compared here, where VALUE has been all the time: code under test may end the process,
print what it likes, patch `==` or forge the answers of the runner, but it does not know what to forge. Values are
equal when they are of the same types throughout: True is not 1.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cascade.environments.shared.memoize import Once
from cascade.environments.swe_agentless import runner
from cascade.errors import RowError
from cascade.sandbox import PYTHON, Limits, execute

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=20.0, processes=4)


@dataclass(frozen=True)
class Check:
    """One test."""

    name: str
    """As pytest names it, `path::function`."""
    setup: str
    """Source of what prepares it."""
    expression: str
    expected: str
    """The value, as `runner.as_text` writes it."""


@dataclass(frozen=True)
class Outcome:
    check: Check
    seen: str | None
    """The expression's value, as `runner.as_text` writes it, or `raises …`; None where no answer came."""
    ended: str = ""
    """Where none came: why."""

    @property
    def passed(self) -> bool:
        return self.seen == self.check.expected

    @property
    def reason(self) -> str:
        """What happened instead: `3, not 4`, `raises IndexError, not 4`."""
        return self.ended if self.seen is None else f"{self.seen[:80]}, not {self.check.expected[:80]}"


_OUTCOMES: Once[list[Outcome]] = Once()


def read_checks(tests: Mapping[str, str], names: Iterable[str]) -> list[Check]:
    """The named tests, in the order of the files. Raises RowError (`bad_tests`) where one is missing or not of the form
    above."""
    found: dict[str, Check] = {}
    for path, source in tests.items():
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RowError("bad_tests", f"swe_agentless: {path} is not Python: {error}") from None
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
        shared = [node for node in tree.body if node not in functions]
        for function in functions:
            name = f"{path}::{function.name}"
            found[name] = _check(name, shared, function)
    wanted = dict.fromkeys(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise RowError("bad_tests", f"swe_agentless: the row's `tests` have no {missing[0]}")
    return [check for name, check in found.items() if name in wanted]


def run_checks(files: Mapping[str, str], checks: list[Check]) -> list[Outcome]:
    """What each test comes to, with these files; the same files are tested once.

    Raises SandboxError where the sandbox could not run them.
    """
    return _OUTCOMES.get(repr((sorted(files.items()), checks)), lambda: _run(files, checks))


def _run(files: Mapping[str, str], checks: list[Check]) -> list[Outcome]:
    request = json.dumps([[check.setup, check.expression] for check in checks])
    execution = execute(
        [*PYTHON, "runner.py"],
        {"runner.py": _runner(), **{f"{runner.REPOSITORY}/{path}": text for path, text in files.items()}},
        stdin=request,
        limits=LIMITS,
    )
    lines = execution.stdout.split("\n")[:-1]
    ended = "the program ended" if execution.ended == "exited" else f"the program was stopped ({execution.ended})"
    if len(lines) > len(checks):
        return [Outcome(check, None, "more answers than tests came back") for check in checks]
    unanswered = [Outcome(check, None, f"{ended} before the test did") for check in checks[len(lines) :]]
    return [Outcome(check, line) for check, line in zip(checks, lines, strict=False)] + unanswered


def _check(name: str, shared: list[ast.stmt], function: ast.FunctionDef) -> Check:
    *before, last = function.body
    match last:
        case ast.Assert(test=ast.Compare(left=expression, ops=[ast.Eq()], comparators=[value])):
            try:
                expected = runner.as_text(ast.literal_eval(value))
            except (ValueError, TypeError, RecursionError):
                raise RowError("bad_tests", f"swe_agentless: {name} compares with something not a literal") from None
        case _:
            raise RowError("bad_tests", f"swe_agentless: {name} does not end with `assert EXPRESSION == LITERAL`")
    setup = "\n".join(map(ast.unparse, [*shared, *before]))
    try:
        compile(setup, name, "exec")
    except SyntaxError as error:
        raise RowError("bad_tests", f"swe_agentless: {name} cannot run outside a function: {error}") from None
    return Check(name, setup, ast.unparse(expression), expected)


@cache
def _runner() -> str:
    return Path(runner.__file__).read_text(encoding="utf-8")
