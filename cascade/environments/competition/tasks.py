"""Nano problems: how many numbers up to n, or sums of them. A loop is right and slow; large subtasks need a formula."""

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
class _Part:
    """Numbers i that meet a condition: how many, or a sum over them."""

    condition: str
    """As Python, of i; empty: all."""
    says: str
    count: str
    """The formula of how many there are up to n."""
    total: str
    """The formula of their sum, in q, how many they are."""
    times: int
    plus: int
    """The sum is over `times * i + plus`: 0 and 1 count, 1 and 0 add up."""

    @property
    def term(self) -> str:
        if self.times == 0:
            return "1"
        scaled = "i" if self.times == 1 else f"{self.times} * i"
        return scaled + (f" + {self.plus}" if self.plus else "")

    def words(self) -> str:
        if self.times == 0:
            return f"how many {self.says}" if self.says else "how many there are"
        those = f"those that {self.says}" if self.says else "all of them"
        return f"the sum of {those}" if self.term == "i" else f"the sum of {self.term} over {those}"

    def formula(self) -> str:
        """The value, in q."""
        if self.times == 0:
            return "q"
        total = self.total if self.times == 1 else f"{self.times} * ({self.total})"
        return total + (f" + {self.plus} * q" if self.plus else "")


@dataclass(frozen=True)
class _Family:
    """Parts to be added up, over the numbers from 1, or from m, to n."""

    parts: tuple[_Part, ...]
    ranged: bool

    def statement(self) -> str:
        given, low = ("m and n", "m") if self.ranged else ("n", "1")
        asked = "; ".join(part.words() for part in self.parts)
        total = f"the total of: {asked}" if len(self.parts) > 1 else asked
        return f"Given {given}, look at the numbers i from {low} to n. Print {total}."

    @property
    def _reads(self) -> str:
        return "m, n = map(int, input().split())" if self.ranged else "n = int(input())"

    def loop(self) -> str:
        lines = [self._reads, "s = 0", f"for i in range({'m' if self.ranged else '1'}, n + 1):"]
        for part in self.parts:
            if part.condition:
                lines += [f"    if {part.condition}:", f"        s += {part.term}"]
            else:
                lines.append(f"    s += {part.term}")
        return "\n".join([*lines, "print(s)\n"])

    def formula(self) -> str:
        lines = ["s = 0"]
        for part in self.parts:
            lines += [f"q = {part.count}", f"s += {part.formula()}"]
        if not self.ranged:
            return "\n".join([self._reads, *lines, "print(s)\n"])
        inside = [f"    {line}" for line in [*lines, "return s"]]
        return "\n".join(["def f(n):", *inside, self._reads, "print(f(n) - f(m - 1))\n"])

    def result(self, low: int, n: int) -> int:
        def up_to(n: int) -> int:
            return sum(int(eval(part.formula(), {"q": eval(part.count, {"n": n})})) for part in self.parts)

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
    looped = last  # how many subtasks the loop solves
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


def _draw(rng: Random, level: int) -> _Family:
    """Level 1: one part; 2: two; 3: three; 4: two or three, from m to n."""
    count = rng.choice((2, 3)) if level == 4 else level
    return _Family(tuple(_part(rng, level) for _ in range(count)), level == 4)


def _part(rng: Random, level: int) -> _Part:
    k = rng.randint(3, 9)
    r = rng.randint(1, k - 1)
    rest = f"(n - {r}) // {k} + 1"
    conditions = (
        ("", "", "n", "q * (q + 1) // 2"),
        ("i % 2 == 1", "are odd", "(n + 1) // 2", "q * q"),
        ("i % 2 == 0", "are even", "n // 2", "q * (q + 1)"),
        (f"i % {k} == 0", f"are multiples of {k}", f"n // {k}", f"{k} * q * (q + 1) // 2"),
        (f"i % {k} == {r}", f"leave {r} when divided by {k}", rest, f"{r} * q + {k} * q * (q - 1) // 2"),
    )
    scaled = (rng.randint(2, 9), rng.choice((0, rng.randint(1, 9))))
    return _Part(*rng.choice(conditions), *rng.choice(((0, 1), (1, 0)) if level == 1 else ((0, 1), (1, 0), scaled)))


def _problem(rng: Random, family: _Family, level: int) -> Problem:
    plan = {1: [(40, 100), (60, 10**12)], 4: [(10, 50), (20, 1000), (20, 10_000), (50, 10**12)]}.get(
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
    if target < len(problem.subtasks) - 1:
        return "n is small: a loop.", fenced(Answer(family.loop(), "python"))
    return "n is large: a formula.", fenced(Answer(family.formula(), "python"))


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
    slips += [("f(m - 1)", "f(m)"), ("print(s)", "print(s + 1)"), ("return s", "return s + 1"), ("q = n", "q = n - 1")]
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
