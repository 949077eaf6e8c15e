"""The nano tasks: each is solved by its demonstration, every program passes its tests, and mutants do not."""

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from cascade.chat import Response
from cascade.environments.code import families, programs, tasks
from cascade.environments.code.inside import values
from cascade.errors import CascadeError
from tests.environments.code_problems import code, confined, mutated, verdict

LEVELS = (1, 2, 3, 4, 5)


@confined
@pytest.mark.parametrize("level", LEVELS)
def test_demonstrations_pass(level):
    rows = list(code.generate(12, 3, level))
    for row in rows:
        code.check_row(row)
    with ThreadPoolExecutor(2) as pool:
        answers = [Response(row["demonstration"]["content"]) for row in rows]
        rewards = [result.reward for result in pool.map(code.verify, rows, answers)]
        assert rewards == [1.0] * len(rows)
        # The answer to another question.
        wrong = [result.reward for result in pool.map(code.verify, rows, answers[1:] + answers[:1])]
        assert sum(wrong) <= 1


def test_rows_are_the_same_for_the_same_seed_and_of_both_kinds():
    kinds = set()
    for level in LEVELS:
        few, many = list(code.generate(5, 7, level)), list(code.generate(60, 7, level))
        assert many[:5] == few
        assert json.loads(json.dumps(many)) == many
        assert len({row["id"] for row in many}) > 55
        for row in many:
            kinds.add(row["function"] is None)
            assert row["environment"] == row["domain"] == "code"
            assert len(row["tests"]) == tasks.TESTS
            # A constant does not pass.
            assert len({json.dumps(test["output"]) for test in row["tests"]}) > 1
    assert kinds == {True, False}
    with pytest.raises(CascadeError, match="code has levels 1 to 5"):
        code.generate(1, 0, 6)


def every_program(rng):
    """One program of each family."""
    wanted = {family.names + family.kinds: family for family in (*families.SINGLE, *families.COMPOSED)}
    found = []
    while wanted:
        for level in LEVELS:
            program = programs.draw(rng, level, keep_name=True)
            for key in [key for key in wanted if program.name in key and wanted[key].kinds == program.kinds]:
                del wanted[key]
                found.append(program)
    return found


def outcome(source, name, call):
    """What a trusted function returns, as it would cross."""
    namespace = {}
    exec(source, namespace)
    try:
        return json.dumps(values.encode(namespace[name](*json.loads(json.dumps(call)))))
    except Exception as error:
        return type(error).__name__


def as_row(program, calls):
    outputs = tasks.outputs(program, calls)
    tests = [{"input": call, "output": output} for call, output in zip(calls, outputs, strict=True)]
    return {"function": program.name, "tests": tests}


@confined
def test_every_program_of_the_generator_passes():
    """Short and long forms; many at a time, through a function that calls them by number."""
    rng = Random(5)
    forms = []
    for program in every_program(rng):
        forms.append((program, program.source()))
        if program.loop and program.expression:
            forms.append((program, program.source(loop=True)))
    assert len(forms) > 300
    jobs = []
    for start in range(0, len(forms), 40):
        source, tests = "functions = []\n", []
        for number, (program, text) in enumerate(forms[start : start + 40]):
            source += f"{text}\nfunctions.append({program.name})\n"
            row = as_row(program, [programs.arguments(rng, program) for _ in range(6)])
            tests += [{"input": [number, *test["input"]], "output": test["output"]} for test in row["tests"]]
        source += "def call(number, *arguments): return functions[number](*arguments)\n"
        jobs.append(({"function": "call", "tests": tests}, source))
    with ThreadPoolExecutor(2) as pool:
        assert {result.reason for result in pool.map(lambda job: verdict(*job), jobs) if result.reward != 1} == set()


@confined
def test_mutants_fail():
    """Every mutant that differs on its tests, as a trusted run says, is caught."""
    rng = Random(6)
    jobs, alike = [], 0
    for program in every_program(rng):
        calls = [programs.arguments(rng, program) for _ in range(8)]
        good, bad = program.source(), mutated(program.source())
        differs = any(outcome(good, program.name, call) != outcome(bad, program.name, call) for call in calls)
        alike += not differs
        if differs:
            jobs.append((as_row(program, calls), bad))
    assert alike < 0.1 * len(jobs)
    with ThreadPoolExecutor(2) as pool:
        chosen = rng.sample(jobs, 40)
        results = list(pool.map(lambda job: verdict(*job), chosen))
    for job, result in zip(chosen, results, strict=True):
        assert result.reward == 0.0, (job, result)
