"""Nano problems: how many numbers up to n, or their sum. A loop is right and slow; large subtasks need a formula."""

from dataclasses import dataclass
from random import Random
from typing import Any

from cascade.environments.code.answers import Answer
from cascade.environments.competition.problems import MIB, Case, Problem, Subtask
from cascade.environments.competition.wording import Attempt, fenced, prompt
from cascade.environments.synthetic.rows import NanoTask

SECONDS = 0.25
"""CPU time for a test: a loop takes a tenth of it, or a hundred times as long."""
MEMORY_MB = 128
TESTS = 2

_GENERATOR = """\
import random
subtask, seed = map(int, input().split())
random.seed(10 * seed + subtask)
n = {limits}[subtask - 1]
n = n if seed == 0 else random.randint(n // 2, n)
{prints}
"""


@dataclass(frozen=True)
class _Family:
    """Numbers i from 1, or m, to n that meet a condition: how many, a sum over them, or how many pairs."""

    condition: str
    """As Python, of i; empty: all."""
    says: str
    count: str
    """The formula of how many there are up to n."""
    total: str
    """The formula of their sum, in q, how many they are."""
    value: str
    """`count`, `sum`, `scaled` or `pairs`."""
    times: int
    plus: int
    ranged: bool
    """From m instead of from 1."""

    def statement(self) -> str:
        among = f"from {'m' if self.ranged else '1'} to n{self.says}"
        what = {
            "count": f"how many numbers there are {among}",
            "sum": f"the sum of the numbers {among}",
            "scaled": f"the sum of {self._term} over the numbers i {among}",
            "pairs": f"how many pairs of different numbers there are {among}",
        }[self.value]
        return f"Given {'m and n' if self.ranged else 'n'}, print {what}."

    @property
    def _term(self) -> str:
        return f"{self.times} * i" + (f" + {self.plus}" if self.plus else "")

    @property
    def _reads(self) -> str:
        return "m, n = map(int, input().split())" if self.ranged else "n = int(input())"

    @property
    def _combined(self) -> str:
        """The value as a formula in q."""
        if self.value == "count":
            return "q"
        if self.value == "pairs":
            return "q * (q - 1) // 2"
        if self.value == "sum":
            return self.total
        return f"{self.times} * ({self.total})" + (f" + {self.plus} * q" if self.plus else "")

    def loop(self) -> str:
        when = f" if {self.condition}" if self.condition else ""
        low = "m" if self.ranged else "1"
        if self.value == "pairs":
            also = f" if {self.condition.replace('i', 'j')}" if self.condition else ""
            inner = f" for j in range(i + 1, n + 1){also}"
            return f"{self._reads}\nprint(sum(1 for i in range({low}, n + 1){when}{inner}))\n"
        term = {"count": "1", "sum": "i", "scaled": self._term}[self.value]
        return f"{self._reads}\nprint(sum({term} for i in range({low}, n + 1){when}))\n"

    def counting(self) -> str:
        """Pairs by a loop over single numbers."""
        when = f" if {self.condition}" if self.condition else ""
        return f"{self._reads}\nq = sum(1 for i in range(1, n + 1){when})\nprint(q * (q - 1) // 2)\n"

    def formula(self) -> str:
        if not self.ranged:
            return f"{self._reads}\nq = {self.count}\nprint({self._combined})\n"
        return f"def f(n):\n    q = {self.count}\n    return {self._combined}\n{self._reads}\nprint(f(n) - f(m - 1))\n"

    def result(self, low: int, n: int) -> int:
        names: dict[str, Any] = {}

        def up_to(n: int) -> int:
            names.update(n=n, q=0)
            names["q"] = eval(self.count, {}, names)
            return int(eval(self._combined, {}, names))

        return up_to(n) - (up_to(low - 1) if self.ranged else 0)


def make_task(rng: Random, level: int) -> NanoTask:
    family = _draw(rng, level % 10)
    problem = _problem(rng, family, level % 10)
    last = len(problem.subtasks) - 1
    fields: dict[str, Any] = {"problem": _as_json(problem)}
    if level < 10:
        whole = rng.random() < 0.3
        target = last if whole else rng.randrange(len(problem.subtasks))
        text = prompt(problem, None if whole else target)
        fields |= {} if whole else {"subtask": target + 1}
        return NanoTask(text, *_solution(family, problem, target), fields)
    target = rng.choice((last, rng.randrange(1, last + 1)))
    looped = _looped(family, problem)
    accepted, rejected = [], []
    if rng.random() < 0.6:
        accepted.append((rng.randrange(min(target, looped)), Answer(family.loop(), "python")))
    if not accepted or rng.random() < 0.6:
        slow = target >= looped and rng.random() < 0.3
        code = family.loop() if slow else _spoiled(rng, family, problem)
        fails = "too slow" if slow else "wrong answer"
        verdicts = tuple("accepted" if slow and n < looped else fails for n in range(len(problem.subtasks)))
        earned = sum(p.points for p, v in zip(problem.subtasks, verdicts, strict=True) if v == "accepted")
        rejected.append(Attempt(Answer(code, "python"), verdicts, earned / problem.points))
    text = prompt(problem, target, accepted, rejected)
    return NanoTask(text, *_solution(family, problem, target), {**fields, "subtask": target + 1})


def check_level(level: int) -> bool:
    return level // 10 in (0, 1) and 1 <= level % 10 <= 4


def _draw(rng: Random, level: int) -> _Family:
    """Level 1: how many, or their sum; 2: sums of a multiple; 3: pairs too; 4: from m to n too."""
    k = rng.randint(2, 9)
    r = rng.randint(1, k - 1)
    conditions = [
        ("", "", "n", "q * (q + 1) // 2"),
        ("i % 2 == 1", " that are odd", "(n + 1) // 2", "q * q"),
        ("i % 2 == 0", " that are even", "n // 2", "q * (q + 1)"),
        (f"i % {k} == 0", f" that are multiples of {k}", f"n // {k}", f"{k} * q * (q + 1) // 2"),
    ]
    if level > 1:
        rest = f"(n - {r}) // {k} + 1"
        conditions += 2 * [
            (f"i % {k} == {r}", f" that leave {r} when divided by {k}", rest, f"{r} * q + {k} * q * (q - 1) // 2")
        ]
    values = {1: ("count", "sum"), 2: ("count", "sum", "scaled"), 3: ("scaled", "pairs"), 4: ("count", "sum", "scaled")}
    value = rng.choice(values[level])
    ranged = level == 4
    times, plus = (rng.randint(2, 9), rng.choice((0, rng.randint(1, 9)))) if value == "scaled" else (1, 0)
    return _Family(*rng.choice(conditions), value, times, plus, ranged)


def _problem(rng: Random, family: _Family, level: int) -> Problem:
    if family.value == "pairs":
        plan = [(20, 50), (30, 20_000), (50, 10**9)]
    else:
        plan = {1: [(40, 100), (60, 10**12)], 4: [(10, 50), (20, 1000), (20, 20_000), (50, 10**12)]}.get(
            level, [(20, 50), (30, 10_000), (50, 10**12)]
        )
    subtasks = []
    for points, limit in plan:
        tests = []
        for number in range(TESTS):
            n = limit if number == 0 else rng.randint(limit // 2, limit)
            tests.append(_test(family, rng.randint(1, n // 2) if family.ranged else 1, n))
        limits = f"n is at most {limit if limit < 10**6 else f'10^{len(str(limit)) - 1}'}"
        subtasks.append(Subtask(points, limits, tuple(tests), SECONDS, MEMORY_MB * MIB))
    samples = tuple(_test(family, rng.randint(1, 4) if family.ranged else 1, n) for n in [rng.randint(12, 29)])
    prints = "print(random.randint(1, n // 2), n)" if family.ranged else "print(n)"
    generator = _GENERATOR.format(limits=[limit for _, limit in plan], prints=prints)
    return Problem(family.statement(), tuple(subtasks), samples, Answer(generator, "python"))


def _test(family: _Family, low: int, n: int) -> Case:
    return Case(f"{low} {n}\n" if family.ranged else f"{n}\n", f"{family.result(low, n)}\n")


def _solution(family: _Family, problem: Problem, target: int) -> tuple[str, str]:
    """Reasoning and answer: a loop where the subtask allows one."""
    if target < _looped(family, problem):
        return "n is small: a loop.", fenced(Answer(family.loop(), "python"))
    if family.value == "pairs" and target == 1:
        return "Count them in a loop, then the pairs.", fenced(Answer(family.counting(), "python"))
    return "n is large: a formula.", fenced(Answer(family.formula(), "python"))


def _looped(family: _Family, problem: Problem) -> int:
    """How many subtasks the loop solves."""
    return len(problem.subtasks) - (2 if family.value == "pairs" else 1)


def _spoiled(rng: Random, family: _Family, problem: Problem) -> str:
    """A formula with a slip that every subtask shows; a number too many where none does."""
    code = family.formula()
    slips = [
        ("q + 1", "q - 1"),
        ("q - 1", "q + 1"),
        (" // 2", ""),
        ("n // ", "n % "),
        ("+ 1", "- 1"),
        ("q * q", "2 * q"),
    ]
    slips += [(str(k), str(k + d)) for k in range(2, 10) for d in (-1, 1)]
    slips += [("f(m - 1)", "f(m)"), ("print(q)", "print(q + 1)"), ("return q", "return q + 1"), ("q = n", "q = n - 1")]
    found = [code.replace(old, new, 1) for old, new in slips if old in code]
    rng.shuffle(found)
    wrong = (
        each for each in found if all(_prints(each, s.tests[0].input) != s.tests[0].output for s in problem.subtasks)
    )
    return next(wrong, f"{code}print(0)\n")


def _prints(code: str, text: str) -> str:
    """What a program of this file prints; nothing where it fails."""
    printed: list[str] = []
    try:
        exec(code, {"input": lambda: text, "print": lambda value: printed.append(f"{value}\n")})
    except ZeroDivisionError:
        return ""
    return "".join(printed)


def _as_json(problem: Problem) -> dict[str, Any]:
    assert problem.generator is not None
    return {
        "statement": problem.statement,
        "subtasks": [
            {
                "points": each.points,
                "limits": each.limits,
                "seconds": each.seconds,
                "memory_mb": each.memory_bytes // MIB,
                "tests": [{"input": test.input, "output": test.output} for test in each.tests],
            }
            for each in problem.subtasks
        ],
        "samples": [{"input": test.input, "output": test.output} for test in problem.samples],
        "generator": {"language": problem.generator.language, "code": problem.generator.code},
    }
