"""The nano generator: every bug fails its tests, every fix passes them, and the rows are what they should be."""

import json
import sys
from itertools import pairwise

import pytest

from cascade.chat import Response
from cascade.environments.registry import environment_of, get
from cascade.environments.swe_agentless import checks, repository, runner
from cascade.environments.swe_agentless.answers import parse_edits
from cascade.environments.swe_agentless.diffs import parse_diff
from cascade.environments.swe_agentless.editing import place
from cascade.environments.swe_agentless.tasks import render_block
from cascade.errors import CascadeError

SWE = get("swe_agentless")
LEVELS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("level", LEVELS)
def test_every_generated_row_is_failed_by_its_bug_and_passed_by_its_fix(level: int):
    """Values of the bug and of the fix, compared as the verifier does, without a sandbox: the code is ours."""
    for sample in SWE.generate(150, seed=5, level=level):
        fixed = place(sample["files"], parse_diff(sample["patch"])).after
        names = [*sample["FAIL_TO_PASS"], *sample["PASS_TO_PASS"]]
        found = checks.read_checks(sample["tests"], names)
        assert failed(fixed, found) == set()
        assert failed(sample["files"], found) == set(sample["FAIL_TO_PASS"]) != set()


def failed(files, found) -> set[str]:
    modules = {}

    def importer(name, *rest):
        if f"{name}.py" not in files:
            return __import__(name, *rest)
        if name not in modules:
            modules[name] = type("module", (), {})()
            namespace = {"__builtins__": {**vars(__import__("builtins")), "__import__": importer}}
            exec(files[f"{name}.py"], namespace)
            vars(modules[name]).update(namespace)
        return modules[name]

    wrong = set()
    for check in found:
        namespace = {"__builtins__": {**vars(__import__("builtins")), "__import__": importer}}
        try:
            exec(check.setup, namespace)
            if runner.as_text(eval(check.expression, namespace)) != check.expected:
                wrong.add(check.name)
        except Exception:
            wrong.add(check.name)
    return wrong


@pytest.mark.parametrize("level", LEVELS)
def test_in_the_sandbox_demonstrations_are_right_and_the_bug_left_in_is_wrong(level: int):
    for sample in SWE.generate(8, seed=6, level=level):
        SWE.check_row(sample)
        again = json.loads(json.dumps(sample))
        found = SWE.verify(again, Response(sample["demonstration"]["content"]))
        assert found.reward == 1.0, (sample, found)
        assert found.extracted == sample["patch"]
        unrelated = render_block("notes.py", "", "x = 1")
        assert SWE.verify(again, Response(unrelated)).reward == 0.0


def test_the_answer_to_another_issue_is_wrong():
    rows = list(SWE.generate(12, seed=8, level=2))
    for sample, other in pairwise(rows):
        assert SWE.verify(sample, Response(other["demonstration"]["content"])).reward == 0.0


def test_bugs_are_of_many_kinds():
    kinds = {sample["bug"] for level in LEVELS for sample in SWE.generate(60, 3, level)}
    assert len(kinds) >= 7


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_seed_gives_the_same_rows_and_more_of_them_only_append(level: int):
    few = list(SWE.generate(10, seed=3, level=level))
    assert list(SWE.generate(25, seed=3, level=level))[:10] == few
    other = list(SWE.generate(10, seed=4, level=level))
    assert {sample["id"] for sample in few}.isdisjoint(sample["id"] for sample in other)
    for sample in few:
        assert environment_of(sample) is SWE
        prompt = sample["responses_create_params"]["input"][0]["content"]
        assert sample["problem_statement"] in prompt
        assert all(f"### {path}\n" in prompt for path in sample["files"])
        assert not any(test in prompt for test in sample["tests"])


@pytest.mark.parametrize("level", [0, 6])
def test_a_level_that_does_not_exist_is_refused(level: int):
    with pytest.raises(CascadeError, match="swe_agentless has levels 1 to 5"):
        SWE.generate(1, seed=0, level=level)


def test_tests_are_read_from_pytest_files_as_the_repository_writes_them():
    case = repository.Case("test_m.py::test_f_0", "m", "f", ([1], "a"), (True, -2))
    found = checks.read_checks(repository.test_files((case,)), [case.name])
    assert found == [checks.Check(case.name, "from m import f", "f([1], 'a')", '{"tuple": [true, -2]}')]


def run_pytest_files(files, tests, tmp_path, monkeypatch):
    """The test functions run as Python would run them: real imports from a real folder."""
    monkeypatch.syspath_prepend(tmp_path)
    for path, source in {**files, **tests}.items():
        (tmp_path / path).write_text(source)
    results = {}
    for path in tests:
        for module in [name[:-3] for name in (*files, *tests)]:
            sys.modules.pop(module, None)
        namespace = {}
        exec((tmp_path / path).read_text(), namespace)
        for name, test in namespace.items():
            if name.startswith("test_"):
                try:
                    test()
                    results[f"{path}::{name}"] = True
                except Exception:
                    results[f"{path}::{name}"] = False
    for module in [name[:-3] for name in (*files, *tests)]:
        sys.modules.pop(module, None)
    return results


def test_run_as_pytest_files_the_tests_tell_bug_from_fix(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for number, row in enumerate(row for level in LEVELS for row in SWE.generate(10, 3, level)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert row["FAIL_TO_PASS"]
        before = run_pytest_files(row["files"], row["tests"], folder, monkeypatch)
        assert {name for name, passed in before.items() if not passed} == set(row["FAIL_TO_PASS"])
        assert {name for name, passed in before.items() if passed} == set(row["PASS_TO_PASS"])
        fixed = place(row["files"], parse_edits(row["demonstration"]["content"])).after
        assert all(run_pytest_files(fixed, row["tests"], folder, monkeypatch).values())


def test_run_reports_wrong_values_types_and_exceptions():
    files = {"m.py": "def f(x):\n    return x[0]\n"}
    case = repository.Case
    cases = [
        case("a", "m", "f", ([1],), 1),
        case("b", "m", "f", ([2],), 1),
        case("c", "m", "f", ([],), 1),
        case("d", "m", "f", ([True],), 1),
    ]
    assert repository.run(files, cases) == {"a": "", "b": "returns 2", "c": "raises IndexError", "d": "returns True"}
