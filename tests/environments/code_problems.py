"""Problems of each form, and how the tests of the code environment have answers judged."""

import ast
from typing import ClassVar

import pytest

from cascade.chat import Response
from cascade.environments.registry import get
from cascade.sandbox import missing

code = get("code")
confined = pytest.mark.skipif(bool(missing()), reason=f"programs cannot be confined here: {missing()}")

ADD = {"function": "add", "tests": [{"input": [2, 3], "output": 5}, {"input": [-1, 1], "output": 0}]}
ECHO = {"function": None, "tests": [{"input": "2 3\n", "output": "5\n"}, {"input": "-1 1\n", "output": "0\n"}]}
TOP = {
    "prompt": 'from typing import List\n\n\ndef top(values: List[int]) -> List[int]:\n    """Running maximum.\n'
    '    >>> top([1, 3, 2])\n    [1, 3, 3]\n    """\n',
    "canonical_solution": "    best, result = None, []\n    for v in values:\n"
    "        best = v if best is None else max(best, v)\n        result.append(best)\n    return result\n",
    "test": "def check(candidate):\n    assert candidate([]) == []\n    assert candidate([1, 3, 2]) == [1, 3, 3]\n"
    "    assert candidate([5, 4]) == [5, 5]\n",
    "entry_point": "top",
}
ROOT = {
    "prompt": 'import math\n\n\ndef poly(xs: list, x: float):\n    """Value of a polynomial."""\n'
    "    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs: list):\n    """A root of poly(xs, x), which is a line."""\n',
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    import random\n    rng = random.Random(3)\n"
    "    for _ in range(20):\n        line = [rng.randint(-9, 9), rng.randint(1, 9)]\n"
    "        assert abs(poly(line, candidate(list(line)))) < 1e-4\n",
    "entry_point": "find_zero",
}
KINDS = {
    "prompt": 'def kinds(n):\n    """Several types at once; ValueError below zero."""\n',
    "canonical_solution": "    if n < 0:\n        raise ValueError('below zero')\n"
    "    return (n, {'n': [n]}, {n, n + 1}, 10 ** n, n / 2, None, n > 1, b'x')\n",
    "test": "def check(candidate):\n    assert candidate(2) == (2, {'n': [2]}, {2, 3}, 100, 1.0, None, True, b'x')\n"
    "    assert candidate(n=60)[3] == 10 ** 60\n    assert candidate(0)[6] is False\n"
    "    try:\n        candidate(-1)\n    except ValueError:\n        return\n    assert False, 'no ValueError'\n",
    "entry_point": "kinds",
}


def fenced(source, label="python"):
    return f"Here it is.\n```{label}\n{source.rstrip()}\n```\nDone."


def verdict(row, source, label="python"):
    return code.verify(row, Response(fenced(source, label)))


class Mutation(ast.NodeTransformer):
    """Changes the first operator, comparison, constant or call that it knows to another."""

    swaps: ClassVar = {
             ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
             ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Gt: ast.LtE, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.LtE: ast.Gt,
             ast.In: ast.NotIn, ast.NotIn: ast.In, ast.USub: ast.UAdd}  # fmt: skip
    names: ClassVar = {
             "max": "min", "min": "max", "all": "any", "any": "all", "sum": "len", "len": "str", "sorted": "list",
             "upper": "lower", "count": "find", "find": "count", "startswith": "endswith", "endswith": "startswith",
             "abs": "str", "capitalize": "upper", "replace": "strip", "str": "repr", "join": "strip"}  # fmt: skip

    def __init__(self):
        self.done = False

    def generic_visit(self, node):
        if self.done:
            return node
        for field in ("op", "ops"):
            operators = getattr(node, field, None)
            operator = operators[0] if isinstance(operators, list) else operators
            if type(operator) in self.swaps:
                other = self.swaps[type(operator)]()
                setattr(node, field, [other, *operators[1:]] if isinstance(operators, list) else other)
                self.done = True
                return node
        for field in ("id", "attr"):
            if getattr(node, field, None) in self.names and isinstance(getattr(node, "ctx", None), ast.Load):
                setattr(node, field, self.names[getattr(node, field)])
                self.done = True
                return node
        if isinstance(node, ast.Constant) and type(node.value) is int:
            self.done = True
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return super().generic_visit(node)


def mutated(source):
    tree = Mutation().visit(ast.parse(source))
    return ast.unparse(ast.fix_missing_locations(tree))
