"""Runs a program on a problem: on its samples, on generated inputs, and on the hidden tests of its subtasks.

The program never sees what decides: it gets inputs, and what it prints is compared outside of its sandbox, by the
problem's checker in another one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cascade.environments.code.answers import Answer
from cascade.environments.code.grading import Grade, Part, Ran, Undecided, compiled_cpp, run_streams
from cascade.environments.code.outputs import same_output
from cascade.environments.competition.problems import Case, Problem, Subtask
from cascade.environments.shared.memoize import Once
from cascade.sandbox import PYTHON, Execution, Limits, Program, connect, execute

RIGHT, WRONG, SLOW, MEMORY, CRASH, REFUSED = (
    *("accepted", "wrong answer", "too slow", "too much memory", "crashes", "does not compile"),
)
"""Verdicts, in words."""

_OWN = Limits(cpu_seconds=20.0, wall_seconds=40.0, memory_bytes=1 << 30)
"""Of a checker or an interactor."""
_COMPILED: Once[bytes | Grade] = Once(256)
_GENERATED: Once[list[str]] = Once(1024)
_JUDGED: Once["Judgement"] = Once()
_TRIED: Once["Trial"] = Once()
_EXECUTE = "import os, sys; os.chmod('program', 0o700); os.execv('./program', ['program', *sys.argv[1:]])"


@dataclass(frozen=True)
class Judgement:
    """For each subtask the share of its points, and the verdict in words: that of the first test it fails."""

    shares: tuple[float, ...]
    verdicts: tuple[str, ...]

    def score(self, problem: Problem) -> float:
        """Share of all points."""
        return sum(share * each.points for share, each in zip(self.shares, problem.subtasks, strict=True)) / (
            problem.points
        )


def judge(problem: Problem, answer: Answer, only: int | None = None) -> Judgement:
    """On the hidden tests, of all subtasks or of subtask `only`, from 0; the others are then not judged (`–`).

    Raises SandboxError, and Undecided (`no_compiler`, `bad_checker`).
    """
    return _JUDGED.get(repr((problem, answer, only)), lambda: _judge(problem, answer, only))


def _judge(problem: Problem, answer: Answer, only: int | None) -> Judgement:
    judged = [number for number in range(len(problem.subtasks)) if only in (None, number)]
    found = _on_tests(problem, answer, [(problem.subtasks[n], problem.subtasks[n].tests) for n in judged])
    results = dict(zip(judged, found, strict=True))
    shares, verdicts = zip(*(results.get(n, (0.0, "–")) for n in range(len(problem.subtasks))), strict=True)
    return Judgement(shares, verdicts)


@dataclass(frozen=True)
class Trial:
    """What is found out without the judge: whether a program is right on the samples, and what it prints on generated
    inputs of each subtask; `!` and a verdict where it does not end well. Programs that behave alike are the same, as
    far as one can tell."""

    passes: bool
    behaviours: tuple[tuple[str, ...], ...]

    def is_sound(self, subtask: int) -> bool:
        """Whether it ends well on every input of a subtask (from 0)."""
        return not any(output.startswith("!") for output in self.behaviours[subtask])


def try_out(problem: Problem, answer: Answer, inputs: list[list[str]]) -> Trial:
    """On the public samples under the widest limits, and on inputs of each subtask under its own. What fails the
    samples is not run further. Raises as `judge`."""
    return _TRIED.get(repr((problem, answer, inputs)), lambda: _try_out(problem, answer, inputs))


def _try_out(problem: Problem, answer: Answer, inputs: list[list[str]]) -> Trial:
    widest = max(problem.subtasks, key=lambda each: (each.seconds, each.memory_bytes))
    [(share, words)] = _on_tests(problem, answer, [(widest, problem.samples)]) if problem.samples else [(1.0, "")]
    program = _built(answer)
    if isinstance(program, Grade):
        share, words = 0.0, REFUSED
    if isinstance(program, Grade) or share < 1:
        return Trial(False, ((f"!{words}",),) * len(inputs))
    parts = [
        Part(of_subtask, [""] * len(of_subtask), limits.seconds, limits.memory_bytes)
        for of_subtask, limits in zip(inputs, problem.subtasks, strict=True)
    ]
    runs = run_streams(program, parts) if any(inputs) else [list[Ran]() for _ in inputs]
    return Trial(True, tuple(tuple(map(_printed, of_subtask)) for of_subtask in runs))


def _printed(run: Ran) -> str:
    return f"!{_verdict(run)}" if run.status else " ".join(run.output.split())


def generated_inputs(problem: Problem, subtask: int, count: int) -> list[str]:
    """Inputs within the limits of a subtask, by the problem's generator; none where it has none, and none of an
    interactive problem. Raises as `judge`, and Undecided (`bad_generator`)."""
    generator = problem.generator
    if generator is None or problem.interactor is not None or count == 0:
        return []

    def generate() -> list[str]:
        program = _built(generator)
        asked = [f"{subtask + 1} {seed}\n" for seed in range(count)]
        part = Part(asked, [" " * (1 << 20)] * count)
        runs = [] if isinstance(program, Grade) else run_streams(program, [part])[0]
        if not runs or any(run.status for run in runs):
            raise Undecided("bad_generator", f"the problem's generator fails on subtask {subtask + 1}")
        return list(dict.fromkeys(run.output for run in runs))

    return _GENERATED.get(repr((generator, subtask, count)), generate)


def _on_tests(
    problem: Problem, answer: Answer, groups: list[tuple[Subtask, tuple[Case, ...]]]
) -> list[tuple[float, str]]:
    """For each group of tests, run under the limits of a subtask: the smallest share of its tests, and the first
    verdict that is not the full one."""
    program = _built(answer)
    if isinstance(program, Grade):
        return [(0.0, REFUSED)] * len(groups)
    if problem.interactor is not None:
        own = problem.interactor
        return [_least(_interact(own, subtask, program, test) for test in tests) for subtask, tests in groups]
    parts = [
        Part([t.input for t in tests], [t.output for t in tests], subtask.seconds, subtask.memory_bytes)
        for subtask, tests in groups
    ]
    return [
        _least(_compare(problem, test, run) for test, run in zip(tests, runs, strict=True))
        for (_, tests), runs in zip(groups, run_streams(program, parts), strict=True)
    ]


def _least(results: Iterable[tuple[float, str]]) -> tuple[float, str]:
    share, words = 1.0, RIGHT
    for found, verdict in results:
        if found < share:
            share, words = found, verdict if found == 0 else f"{found:.2g} of the points"
        if share == 0:
            break
    return share, words


def _compare(problem: Problem, test: Case, run: Ran) -> tuple[float, str]:
    if run.status:
        return 0.0, _verdict(run)
    if problem.checker is None:
        right = same_output(test.output, run.output)
        return float(right), RIGHT if right else WRONG
    files = {"input.txt": test.input, "output.txt": run.output, "answer.txt": test.output}
    command, own = _command(problem.checker, "checker")
    share = _share(execute([*command, *files], {**own, **files}, limits=_OWN), "checker")
    return share, RIGHT if share == 1 else WRONG


def _interact(interactor: Answer, subtask: Subtask, program: str | bytes, test: Case) -> tuple[float, str]:
    command, files = _command(interactor, "interactor")
    files |= {"input.txt": test.input, "answer.txt": test.output}
    limits = Limits(subtask.seconds, 2 * subtask.seconds + 1, max(subtask.memory_bytes, 64 << 20))
    candidate = Program(*_start(program, "main"), limits)
    asker, answerer = connect(Program([*command, "input.txt", "answer.txt"], files, _OWN), candidate)
    if answerer is not None and answerer.ended in ("cpu_time", "wall_time"):
        return 0.0, SLOW
    if answerer is not None and answerer.ended == "memory":
        return 0.0, MEMORY
    share = _share(asker, "interactor")
    if share == 0 and answerer is not None and answerer.exit_code not in (0, None):
        return 0.0, CRASH
    return share, RIGHT if share == 1 else WRONG


def _share(result: Execution, what: str) -> float:
    """The share of the points that a checker, or an interactor, gives. Raises Undecided (`bad_checker`)."""
    said = (result.stderr if what == "interactor" else result.stdout).split()
    if result.exit_code == 0:
        try:
            share = float(said[0]) if said else 1.0
        except ValueError:
            return 1.0
        return min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    if result.exit_code in (1, 2):
        return 0.0
    raise Undecided("bad_checker", f"the problem's {what} fails ({result.ended}): {result.stderr[-200:]}")


def _command(own: Answer, name: str) -> tuple[list[str], dict[str, str | bytes]]:
    """How a program of the problem's own is started. Raises Undecided (`bad_checker`)."""
    program = _built(own)
    if isinstance(program, Grade):
        raise Undecided("bad_checker", f"the problem's {name}: {program.reason}")
    return _start(program, name)


def _start(program: str | bytes, name: str) -> tuple[list[str], dict[str, str | bytes]]:
    if isinstance(program, bytes):
        return [*PYTHON, "-c", _EXECUTE], {"program": program}
    return [*PYTHON, f"{name}.py"], {f"{name}.py": program}


def _built(answer: Answer) -> str | bytes | Grade:
    """Python's source, a compiled program, or why it does not compile."""
    if answer.language != "cpp":
        return answer.code
    return _COMPILED.get(answer.code, lambda: compiled_cpp(answer.code))


def _verdict(run: Ran) -> str:
    if "too long" in run.status:
        return SLOW
    if "memory" in run.status.lower() or "bad_alloc" in run.status:
        return MEMORY
    return REFUSED if "compile" in run.status else CRASH
