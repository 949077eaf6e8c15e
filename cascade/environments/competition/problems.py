"""A row's `problem`: a statement, subtasks with hidden tests and limits, public samples, and programs of its own.

    {"statement": "Given n, print …",
     "subtasks": [{"points": 30, "limits": "n is at most 100", "seconds": 0.25, "memory_mb": 256,
                   "tests": [{"input": "5\\n", "output": "15\\n"}]}],
     "samples": [{"input": "3\\n", "output": "6\\n"}],
     "generator": {"language": "python", "code": …},
     "checker": …, "interactor": …}

A generator reads the number of a subtask and a seed, and prints an input within its limits. A checker is started in a
directory with the files `input.txt`, `output.txt` (what the program printed) and `answer.txt` (the test's `output`),
which are its arguments; it ends with exit code 0 where that is right, with 1 where it is wrong, or prints a share of
the points between 0 and 1. An interactor finds `input.txt` and `answer.txt`; its input and output are connected to the
program's; it ends as a checker does, with the share on standard error. Without a checker outputs are compared as those
of `code`."""

from dataclasses import dataclass
from typing import Any

from cascade.chat import Row
from cascade.environments.code.answers import LABELS, Answer
from cascade.errors import RowError

MIB = 1 << 20
MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    input: str
    output: str


@dataclass(frozen=True)
class Subtask:
    points: float
    limits: str
    tests: tuple[Case, ...]
    seconds: float
    """CPU time for each test; twice that of wall time."""
    memory_bytes: int


@dataclass(frozen=True)
class Problem:
    statement: str
    subtasks: tuple[Subtask, ...]
    samples: tuple[Case, ...] = ()
    generator: Answer | None = None
    checker: Answer | None = None
    interactor: Answer | None = None

    @property
    def points(self) -> float:
        return sum(subtask.points for subtask in self.subtasks)


def problem_of(row: Row) -> Problem:
    """Raises RowError (`bad_problem`, `bad_tests`)."""
    raw = row.get("problem")
    if not isinstance(raw, dict):
        raise RowError("bad_problem", "competition: the row has no `problem`")
    try:
        subtasks = tuple(_subtask(each) for each in raw["subtasks"])
        programs = {name: _program(raw, name) for name in ("generator", "checker", "interactor")}
        samples = tuple(_test(test) for test in raw.get("samples") or [])
        statement = str(raw["statement"])
    except (TypeError, KeyError, ValueError) as error:
        raise RowError("bad_problem", f"competition: `problem` cannot be read: {error!r}"[:300]) from None
    if not subtasks or sum(subtask.points for subtask in subtasks) <= 0:
        raise RowError("bad_problem", "competition: the problem has no subtask with points")
    number = row.get("subtask")
    if number is not None and number not in range(1, len(subtasks) + 1):
        raise RowError("bad_problem", f"competition: there is no subtask {number!r}")
    return Problem(statement, subtasks, samples, **programs)


def _subtask(raw: dict[str, Any]) -> Subtask:
    tests = tuple(_test(test) for test in raw["tests"])
    if not tests:
        raise RowError("bad_tests", "competition: a subtask has no tests")
    seconds, memory, points = float(raw.get("seconds", 1.0)), raw.get("memory_mb", 256), float(raw["points"])
    if not (0 < seconds <= MAX_SECONDS and memory > 0 and points >= 0):
        raise ValueError(f"limits of {seconds:g} s, {memory} MB, or {points:g} points")
    return Subtask(points, str(raw.get("limits", "")), tests, seconds, int(memory * MIB))


def _test(raw: dict[str, Any]) -> Case:
    if not isinstance(raw["input"], str) or not isinstance(raw["output"], str):
        raise TypeError("inputs and outputs must be texts")
    return Case(raw["input"], raw["output"])


def _program(raw: dict[str, Any], name: str) -> Answer | None:
    program = raw.get(name)
    if program is None:
        return None
    return Answer(str(program["code"]), LABELS[str(program.get("language", "python")).lower()])
