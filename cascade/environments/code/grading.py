"""Runs an answer on the tests of a problem and says whether it passes all of them.

The candidate's process never holds what decides: of calls it gets the arguments, of programs the input, and what
comes back is compared here, as plain data. Of `check(candidate)` the test runs in a second sandbox and only its calls
cross over. So there is nothing to read, to overwrite or to spoof; a candidate can at most answer.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.environments.code.answers import Answer
from cascade.environments.code.inside import values
from cascade.environments.code.outputs import same_output
from cascade.environments.code.problems import Calls, Check, Streams
from cascade.sandbox import PYTHON, Execution, Limits, Program, compiled, connect, execute

SECONDS_A_TEST = 10
"""CPU time of one call, or one input of a program, as in NeMo Gym; wall time is twice that."""
SECONDS = 60
"""CPU time of all tests of an answer together."""
MEMORY_BYTES = 1 << 30
COMPILER = ("g++", "-O2", "-std=c++17", "-o", "program", "main.cpp")
COMPILING = Limits(cpu_seconds=60, wall_seconds=120, memory_bytes=2 << 30)

_FUTURE = re.compile(r"^from __future__ import [\w, ]+\n", re.MULTILINE)
_INSIDE = {f"{path.name}c": compiled(path.read_text(), path.name) for path in Path(values.__file__).parent.glob("*.py")}
_FOR_CALLS = {name: _INSIDE[name] for name in ("functions.pyc", "values.pyc")}
_FOR_STREAMS = _FOR_CALLS | {"streams.pyc": _INSIDE["streams.pyc"]}
_FOR_CANDIDATE = _FOR_CALLS | {"peer.pyc": _INSIDE["peer.pyc"]}
_FOR_CHECK = {name: _INSIDE[name] for name in ("check.pyc", "peer.pyc", "values.pyc")}


class Undecided(Exception):
    """The tests could not be run. `code` is the failure of the verdict."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Grade:
    passed: bool
    reason: str


def grade(problem: Calls | Streams | Check, answer: Answer) -> Grade:
    """Run an answer on a problem's tests. Raises Undecided, and SandboxError where there is no sandbox."""
    if isinstance(problem, Streams):
        return grade_streams(problem, answer)
    if isinstance(problem, Check):
        return grade_check(problem, answer.code)
    return grade_calls(problem, answer.code)


def grade_calls(problem: Calls, source: str) -> Grade:
    job = {"source": source, "function": problem.function, "prelude": problem.prelude, "seconds": SECONDS_A_TEST}
    lines = [job, *({"args": values.encode(call)} for call in problem.arguments)]
    stdin = "".join(json.dumps(line) + "\n" for line in lines)
    result = execute([*PYTHON, "functions.pyc"], _FOR_CALLS, stdin=stdin, limits=_limits(len(lines)))
    loaded, *results = [*_lines(result), None]
    if loaded is None or "loaded" not in loaded:
        return Grade(False, f"does not load: {_why(loaded, result)}")
    for number, expected in enumerate(problem.outputs):
        answer = results[number] if number < len(results) else None
        if answer is None or "value" not in answer:
            return Grade(False, f"test {number + 1}: {_why(answer, result)}")
        if not _same(expected, answer["value"]):
            return Grade(False, f"test {number + 1}: a wrong value")
    return Grade(True, f"all {len(problem.outputs)} tests passed")


def grade_check(problem: Check, source: str) -> Grade:
    """Raises Undecided (`bad_test`, `judge_died`) where the row's own code fails."""
    # A function of its own, or the prompt's to be completed.
    name = re.escape(problem.entry_point)
    whole = re.search(rf"^\s*(async\s+)?def\s+{name}\b|^{name}\s*=|^class\s+{name}\b", source, re.MULTILINE)
    # These must stand first, before the prompt's definitions.
    future = "".join(_FUTURE.findall(source))
    job = {
        "source": f"{future}{problem.definitions}\n{_FUTURE.sub('', source)}" if whole else problem.prompt + source,
        "reference": problem.reference,
        "test": problem.test,
        "entry_point": problem.entry_point,
        "seconds": SECONDS_A_TEST,
    }
    limits = Limits(SECONDS, 2 * SECONDS, MEMORY_BYTES, output_bytes=1 << 20)
    # The judge waits for the candidate, so it must be given longer.
    patient = Limits(2 * SECONDS, limits.wall_seconds + 10, MEMORY_BYTES)
    judge, candidate = connect(
        Program([*PYTHON, "check.pyc"], {**_FOR_CHECK, "job.json": json.dumps(job)}, patient),
        Program([*PYTHON, "functions.pyc"], _FOR_CANDIDATE, limits),
    )
    try:
        verdict = json.loads(judge.stderr)
    except ValueError:
        raise Undecided("judge_died", f"the test's own process did not finish ({judge.ended})") from None
    if "broken" in verdict:
        raise Undecided("bad_test", f"the row's test cannot be run: {verdict['broken']}")
    stopped = candidate is not None and candidate.ended != "exited"
    reason = f"{verdict['reason']} ({candidate.ended})" if candidate and stopped else verdict["reason"]
    return Grade(verdict["passed"] is True, reason)


@dataclass(frozen=True)
class Part:
    """Inputs that a program is run on until one goes wrong, and its limits for each: `seconds` of CPU time, twice that
    of wall time, `memory_bytes` of address space. `outputs` are such as are expected: they limit what it may write."""

    inputs: list[str]
    outputs: list[str]
    seconds: float = SECONDS_A_TEST
    memory_bytes: int = MEMORY_BYTES


@dataclass(frozen=True)
class Ran:
    """What a program did with an input: `status` is empty where it ended well."""

    status: str
    output: str


def grade_streams(problem: Streams, answer: Answer) -> Grade:
    """Raises Undecided (`no_compiler`)."""
    program = compiled_cpp(answer.code) if answer.language == "cpp" else answer.code
    if isinstance(program, Grade):
        return program
    part = Part(problem.inputs, problem.outputs, SECONDS_A_TEST)
    [runs] = run_streams(program, [part], problem.prelude)
    for number, (expected, ran) in enumerate(zip(problem.outputs, runs, strict=True)):
        if ran.status:
            return Grade(False, f"test {number + 1}: {ran.status}")
        if not same_output(expected, ran.output, gym=problem.gym):
            return Grade(False, f"test {number + 1}: a wrong output")
    return Grade(True, f"all {len(problem.outputs)} tests passed")


def run_streams(program: str | bytes, parts: list[Part], prelude: bool = False) -> list[list[Ran]]:
    """Run a program, Python's source or compiled, on the inputs of each part; behind one that goes wrong, the others of
    its part are said to go wrong likewise. Raises SandboxError."""
    outputs, count = [text for part in parts for text in part.outputs], sum(len(part.inputs) for part in parts)
    room = 2 * max(map(len, outputs), default=0) + (1 << 16)
    # A character may take six bytes in JSON.
    output_bytes = 8 * sum(map(len, outputs)) + (count << 18)
    job: dict[str, Any] = {
        "parts": [
            {
                "inputs": part.inputs,
                "seconds": part.seconds,
                "memory": part.memory_bytes if part.memory_bytes != MEMORY_BYTES else None,
            }
            for part in parts
        ],
        "room": room,
    }
    files: dict[str, str | bytes] = {**_FOR_STREAMS}
    if isinstance(program, bytes):
        files["program"] = program
    else:
        job |= {"source": program, "prelude": prelude}
    memory_bytes = max(MEMORY_BYTES, *(part.memory_bytes for part in parts))
    seconds = min(sum(part.seconds * len(part.inputs) for part in parts), max(SECONDS, *(p.seconds for p in parts)))
    limits = Limits(seconds, 2 * seconds, memory_bytes, output_bytes=(1 << 20) + output_bytes)
    result = execute([*PYTHON, "streams.pyc"], files, stdin=json.dumps(job), limits=limits)
    lines = iter(_lines(result))
    line, runs = next(lines, None), list[list[Ran]]()
    for part in parts:
        of_part: list[Ran] = []
        for _ in part.inputs:
            if of_part and of_part[-1].status:
                of_part.append(of_part[-1])
                continue
            status = _why(line, result) if line is None or line.get("status") != "" else ""
            of_part.append(Ran(status, "" if status else str((line or {}).get("output"))))
            # A program that does not compile says so once, for all.
            if "does not compile" not in status:
                line = next(lines, None)
        runs.append(of_part)
    return runs


def compiled_cpp(code: str) -> bytes | Grade:
    """The program; a failed grade where it does not compile. Raises Undecided (`no_compiler`)."""
    built = execute(COMPILER, {"main.cpp": code}, limits=COMPILING, keep=["program"])
    if built.exit_code == 127:
        raise Undecided("no_compiler", f"there is no {COMPILER[0]} here; install one, or leave out rows in C++")
    if built.exit_code != 0 or "program" not in built.files:
        return Grade(False, f"does not compile ({built.ended}): {built.stderr[:300]}")
    return built.files["program"]


def _limits(tests: int) -> Limits:
    seconds = min(SECONDS_A_TEST * tests, SECONDS)
    return Limits(seconds, 2 * seconds, MEMORY_BYTES, output_bytes=1 << 20)


def _lines(result: Execution) -> list[dict[str, Any] | None]:
    """The JSON objects of the output; None for a line that is none. A candidate may have written any of it."""
    found: list[dict[str, Any] | None] = []
    for line in result.stdout.split("\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        found.append(value if isinstance(value, dict) else None)
    return found


def _same(expected: Any, encoded: Any) -> bool:
    try:
        return values.same(expected, encoded)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return False


def _why(answer: dict[str, Any] | None, result: Execution) -> str:
    """In words, why there is no result to compare."""
    if answer and "raised" in answer:
        return f"raises {answer['raised']}: {answer.get('text')}"[:300]
    if answer and answer.get("status"):
        return f"{answer['status']} {answer.get('error', '')}".strip()[:400]
    reasons = {"cpu_time": "takes too long (CPU time)", "wall_time": "takes too long (wall time)",
               "memory": "uses too much memory", "output": "writes far too much",
               "signalled": "takes too long, or crashes"}  # fmt: skip
    return reasons.get(result.ended, "ended without a result")
