"""Tiny repositories with one bug: files, tests, the fix, and what happens when their functions are called."""

import builtins
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from types import CodeType, ModuleType
from typing import Any

from cascade.environments.code import programs
from cascade.environments.code.programs import Program

Files = dict[str, str]

MODULES = ("shop", "utils", "tools", "stats", "basic", "helper", "core", "values")
CALLERS = ("main", "report", "app", "result")
CASES = 4

_SWAPS = (
    ("wrong comparison", r" > ", (" >= ", " < ")),
    ("wrong comparison", r" < ", (" <= ", " > ")),
    ("wrong comparison", r" >= ", (" > ", " <= ")),
    ("wrong comparison", r" <= ", (" < ", " >= ")),
    ("wrong comparison", r" == ", (" != ",)),
    ("wrong comparison", r" != ", (" == ",)),
    ("wrong operator", r" \+ ", (" - ", " * ")),
    ("wrong operator", r" - ", (" + ",)),
    ("wrong operator", r" \* ", (" + ", " - ")),
    ("wrong operator", r" % ", (" // ",)),
    ("wrong operator", r" // ", (" % ", " * ")),
    ("wrong operator", r" \+= ", (" -= ", " = ")),
    ("wrong operator", r" \*= ", (" += ", " = ")),
    ("wrong constant", r"(?<![\w.-])(\d)(?![\w.])", ("up", "down")),
    ("off by one", r"\[0\]", ("[1]",)),
    ("off by one", r"\[-1\]", ("[0]", "[-2]")),
    ("off by one", r"(\w+) \+ 1\)", (r"\1)",)),
    ("off by one", r"range\(1, ", ("range(2, ", "range(")),
    ("off by one", r"\[:(\w+)\]", (r"[:\1 - 1]", r"[:\1 + 1]")),
    ("wrong function", r"\bmax\(", ("min(",)),
    ("wrong function", r"\bmin\(", ("max(",)),
    ("wrong function", r"\bsum\(", ("len(", "max(")),
    ("wrong function", r"\blen\(", ("max(",)),
    ("wrong function", r"\ball\(", ("any(",)),
    ("wrong function", r"\bany\(", ("all(",)),
    ("wrong function", r"upper\(", ("lower(",)),
    ("wrong function", r"startswith", ("endswith",)),
    ("wrong function", r"endswith", ("startswith",)),
    ("missing return", r"return (?=[a-z(\[])", ("",)),
    ("swapped arguments", r"\((\w+), (\w+)\)", (r"(\2, \1)",)),
    ("swapped names", r"\breturn (\w+) ([-+*<>]|==) (\w+)$", (r"return \3 \2 \1",)),
    ("wrong logic", r" in ", (" not in ",)),
    ("wrong logic", r" not in ", (" in ",)),
    ("wrong order", r", reverse=True", ("",)),
    ("wrong order", r"\[::-1\]", ("[::1]",)),
    ("wrong text", r"'hello '", ("'hello'",)),
    ("wrong text", r"'-'", ("' '",)),
)
_SWAP_PATTERNS = tuple((kind, re.compile(pattern), news) for kind, pattern, news in _SWAPS)


@dataclass(frozen=True)
class Case:
    """One test: `assert function(*arguments) == expected`, the function imported from `module`."""

    name: str
    module: str
    function: str
    arguments: tuple[Any, ...]
    expected: Any

    @property
    def call(self) -> str:
        return f"{self.function}({', '.join(map(repr, self.arguments))})"


@dataclass(frozen=True)
class Repository:
    """A repository with one wrong line, and what mends it."""

    files: Files
    fixed: Files
    path: str
    bad: str
    good: str
    kind: str
    program: Program
    """The function that has the bug."""
    seen_by: str
    """The function that the issue speaks of: the same, or one that calls it."""
    cases: tuple[Case, ...]
    failing: tuple[str, ...]

    @property
    def tests(self) -> Files:
        return test_files(self.cases)

    @property
    def passing(self) -> tuple[str, ...]:
        return tuple(case.name for case in self.cases if case.name not in self.failing)

    def symptom(self, rng: Random) -> tuple[Case, str]:
        """A failing test of the function that the issue speaks of, and what happens instead."""
        mine = [case for case in self.cases if case.name in self.failing and case.function == self.seen_by]
        case = rng.choice(mine)
        return case, run(self.files, [case])[case.name]


def draw(rng: Random, level: int) -> Repository:
    """A repository of 1 to 3 files. From level 4 the bug shows in a function that calls the wrong one."""
    while True:
        repository = _attempt(rng, level)
        if repository is not None:
            return repository


def apply_edit(files: Files, path: str, search: str, new: str) -> Files | None:
    """The files after one edit; None unless the path exists and holds the text exactly once."""
    if path not in files or not search or files[path].count(search) != 1:
        return None
    return {**files, path: files[path].replace(search, new)}


def call(files: Files, cases: Iterable[Case]) -> dict[str, Any]:
    """By test name: what the call returned, or the exception it raised.

    Runs in this process: the code is ours, never a model's.
    """
    modules: dict[str, ModuleType] = {}

    def importer(name: str, *rest: Any) -> ModuleType:
        if name not in modules:
            module = modules[name] = ModuleType(name)
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": importer}
            exec(_compiled(files[f"{name}.py"]), module.__dict__)
        return modules[name]

    results: dict[str, Any] = {}
    for case in cases:
        arguments = [list(value) if isinstance(value, list) else value for value in case.arguments]
        try:
            results[case.name] = getattr(importer(case.module), case.function)(*arguments)
        except Exception as error:
            results[case.name] = error
    return results


def draw_line_bug(rng: Random, line: str) -> str | None:
    """The line with a bug put into it; None where the draw found none."""
    found = _bug(rng, f"def function():\n{line}")
    return found[2] if found else None


def run(files: Files, cases: Iterable[Case]) -> dict[str, str]:
    """By test name: `""` where it passes, else what happened (`returns 3`, `raises IndexError`)."""
    cases = list(cases)
    found = call(files, cases)
    results = {}
    for case in cases:
        value = found[case.name]
        if isinstance(value, Exception):
            results[case.name] = f"raises {type(value).__name__}"
        else:
            same = value == case.expected and type(value) is type(case.expected)
            results[case.name] = "" if same else f"returns {value!r}"
    return results


@lru_cache(maxsize=1024)
def _compiled(source: str) -> CodeType:
    return compile(source, "module.py", "exec")


def test_files(cases: tuple[Case, ...]) -> Files:
    """The tests as pytest files, one a module."""
    files: Files = {}
    for module in dict.fromkeys(case.module for case in cases):
        mine = [case for case in cases if case.module == module]
        functions = ", ".join(dict.fromkeys(case.function for case in mine))
        bodies = "".join(
            f"\n\ndef {case.name.split('::')[1]}():\n    assert {case.call} == {case.expected!r}\n" for case in mine
        )
        files[f"test_{module}.py"] = f"from {module} import {functions}\n{bodies}"
    return files


def _attempt(rng: Random, level: int) -> Repository | None:
    sizes = {1: (1,), 2: (2,), 3: (2, 1), 4: (2,), 5: (2, 1)}[level]
    modules = rng.sample(MODULES, len(sizes))
    drawn: dict[str, list[Program]] = {}
    used: set[str] = set()
    for module, size in zip(modules, sizes, strict=True):
        while len(drawn.setdefault(module, [])) < size:
            program = programs.draw(rng, min(level + 1, 4), keep_name=True)
            if program.name not in used:
                used.add(program.name)
                drawn[module].append(program)
    sources = {m: [p.source(loop=rng.random() < 0.6) for p in drawn[m]] for m in modules}
    home = rng.choice(modules)
    index = rng.randrange(len(drawn[home]))
    target = drawn[home][index]
    found = _bug(rng, sources[home][index])
    if found is None:
        return None
    kind, broken, bad, good = found
    fixed = {f"{m}.py": "\n\n".join(sources[m]) for m in modules}
    path = f"{home}.py"
    files = {**fixed, path: "\n\n".join([*sources[home][:index], broken, *sources[home][index + 1 :]])}
    if files[path].count(bad.strip()) != 1:
        return None
    seen_by = target.name
    cases = [
        Case(f"test_{m}.py::test_{p.name}_{i}", m, p.name, tuple(programs.arguments(rng, p)), None)
        for m in modules
        for p in drawn[m]
        for i in range(CASES)
    ]
    if level >= 4:
        caller = rng.choice(CALLERS)
        source, seen_by = _caller(rng, home, target)
        files[f"{caller}.py"] = fixed[f"{caller}.py"] = source
        same = [case for case in cases if case.function == target.name][:2]
        cases += [
            Case(f"test_{caller}.py::test_{seen_by}_{i}", caller, seen_by, case.arguments, None)
            for i, case in enumerate(same)
        ]
    values = call(fixed, cases)
    cases = [replace(case, expected=values[case.name]) for case in cases]
    failing = tuple(name for name, result in run(files, cases).items() if result)
    if not any(case.name in failing and case.function == seen_by for case in cases):
        return None
    return Repository(files, fixed, path, bad, good, kind, target, seen_by, tuple(cases), failing)


def _caller(rng: Random, module: str, target: Program) -> tuple[str, str]:
    """Source and name of a function that calls the target and makes a text of its value."""
    name = rng.choice([n for n in ("show", "describe", "run", "answer") if n != target.name])
    label = rng.choice(("Result", "Answer", "Value", "Total"))
    head = f"from {module} import {target.name}\n\n\ndef {name}({', '.join(target.parameters)}):\n"
    return f"{head}    return '{label}: ' + str({target.signature})\n", name


def _bug(rng: Random, source: str) -> tuple[str, str, str, str] | None:
    """A bug in one line: kind, broken source, the bad line, the good line. None where the first draws do not parse."""
    lines = source.split("\n")
    found: list[tuple[str, int, str]] = []
    for number, line in enumerate(lines[1:], 1):
        for kind, pattern, news in _SWAP_PATTERNS:
            matches = [] if kind == "wrong logic" and "for " in line else list(pattern.finditer(line))
            # Only the last match: in `sum(n for n in nums if n > 2)` the test, not the loop, is what goes wrong.
            for match in matches[-1:]:
                for new in news:
                    text = match.expand(new)
                    if new in ("up", "down"):
                        text = str(max(int(match[1]) + (1 if new == "up" else -1), 0))
                    bad = line[: match.start()] + text + line[match.end() :]
                    if bad != line:
                        found.append((kind, number, bad))
    if len({kind for kind, _, _ in found}) > 1 and rng.random() < 0.75:
        found = [bug for bug in found if bug[0] != "missing return"]
    if not found:
        return None
    wanted = rng.choice(sorted({kind for kind, _, _ in found}))
    kind, number, bad = rng.choice([bug for bug in found if bug[0] == wanted])
    broken = "\n".join([*lines[:number], bad, *lines[number + 1 :]])
    try:
        compile(broken, "module.py", "exec")
    except SyntaxError:
        return None
    return kind, broken, bad, lines[number]
