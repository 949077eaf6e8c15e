"""Programs and tests on which harnesses were reported to be wrong, with the right reward and the report."""

from typing import Any

import pytest

from cascade.chat import Response, Row
from cascade.environments.code import grading
from cascade.environments.code.answers import last_block
from cascade.environments.code.outputs import same_output
from cascade.environments.registry import get
from tests.environments.code_problems import confined, fenced

code = get("code")


def check(entry_point: str, test: str, prompt: str = "", **fields: Any) -> Row:
    lines = "".join(f"    {line}\n" for line in test.split("\n"))
    prompt = prompt or f"def {entry_point}(*args):\n    '''Do it.'''\n"
    return {"prompt": prompt, "test": f"def check(candidate):\n{lines}", "entry_point": entry_point, **fields}


def reward(row: Row, source: str) -> float | None:
    code.check_row(row)
    return code.verify(row, Response(fenced(source))).reward


ADD = {"canonical_solution": "    return a + b\n"}
CASES: list[tuple[str, Row, str, int | None]] = [
    # The test calls the function by its name.
    ("openai/human-eval#60", check("add", "assert add(2, 3) == 5", **ADD), "def add(a, b):\n    return a * b", 0),
    ("openai/human-eval#60", check("add", "assert add(2, 3) == 5"), "def add(a, b):\n    return a + b", 1),
    ("", check("add", "assert add(2, 3) == candidate(3, 2) == 5", **ADD), "def add(a, b):\n    return a + b", 1),
    (
        "",
        check("f", "assert twice(3) == 6", "def twice(x):\n    return 2 * f(x)\n\n\ndef f(x):\n    '''x.'''\n"),
        "def f(x):\n    return x + 1",
        0,
    ),
    # Arguments changed in place: they must be seen, and those that must stay as they are, too.
    ("QuBenhao/LeetCode#13", check("f", "a = [3, 1, 2]\ncandidate(a)\nassert a == [1, 2, 3]"), "def f(a): a.sort()", 1),
    ("", check("f", "a = [3, 1, 2]\ncandidate(a)\nassert a == [1, 2, 3]"), "def f(a): return sorted(a)", 0),
    (
        "QuBenhao/LeetCode#13",
        check("f", "d = {'a': 1}\ncandidate(d)\nassert d == {'a': 2}"),
        "def f(d):\n    for k in d: d[k] += 1",
        1,
    ),
    (
        "",
        check("f", "a = [3, 1]\nassert candidate(a) == [1, 3]\nassert a == [3, 1]"),
        "def f(a):\n    a.sort()\n    return a",
        0,
    ),
    ("", check("f", "a = [3, 1]\nassert candidate(a) == [1, 3]\nassert a == [3, 1]"), "def f(a): return sorted(a)", 1),
    (
        "",
        check(
            "f", "a = [[1, 2], [3, 4]]\nrow = a[0]\ncandidate(a)\nassert a == [[2, 1], [4, 3]]\nassert row == [2, 1]"
        ),
        "def f(a):\n    for row in a: row.reverse()",
        1,
    ),
    ("", check("f", "a = [[0] * 2] * 2\ncandidate(a)\nassert a == [[1, 0], [1, 0]]"), "def f(a): a[0][0] = 1", 1),
    ("", check("f", "a = [1]\nassert candidate(a) is a"), "def f(a): return a", 1),
    ("", check("f", "a = [1]\nassert candidate(a) is not a"), "def f(a): return list(a)", 1),
    ("", check("f", "s = {1}\ncandidate(s)\nassert s == {1, 2}"), "def f(s): s.add(2)", 1),
    ("", check("f", "b = bytearray(b'ab')\ncandidate(b)\nassert b == b'ba'"), "def f(b): b.reverse()", 1),
    ("", check("f", "a = [1]\ncandidate(values=a)\nassert a == [1, 1]"), "def f(values): values.append(values[0])", 1),
    ("", check("f", "a = [1]\ncandidate(a)\nassert a[1] is a"), "def f(a): a.append(a)", 1),
    (
        "",
        check("f", "from collections import deque\nq = deque([1, 2])\ncandidate(q)\nassert list(q) == [2, 1]"),
        "def f(q): q.rotate(1)",
        1,
    ),
    (
        "",
        check("f", "from collections import Counter\nassert candidate(Counter('aab')) == 'a'"),
        "def f(c): return c.most_common(1)[0][0]",
        1,
    ),
    # Exceptions keep their text, arguments and type.
    (
        "openai/human-eval#60",
        check(
            "f", "try:\n    candidate(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'negative'"
        ),
        "def f(x):\n    if x < 0: raise ValueError('negative')",
        1,
    ),
    (
        "",
        check(
            "f", "try:\n    candidate(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'negative'"
        ),
        "def f(x):\n    if x < 0: raise ValueError('below zero')",
        0,
    ),
    (
        "openai/human-eval#60",
        check(
            "f", "try:\n    candidate({}, 'a')\n    assert False\nexcept KeyError as e:\n    assert e.args == ('a',)"
        ),
        "def f(d, k): return d[k]",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept ValueError as e:\n    assert str(e) == 'x'\nelse:\n    assert False"),
        "class Mine(ValueError): pass\ndef f(): raise Mine('x')",
        1,
    ),
    (
        "",
        check(
            "f",
            "try:\n    candidate()\nexcept Mine as e:\n    assert e.code == 7\nelse:\n    assert False",
            "class Mine(Exception):\n    def __init__(self, code):\n        super().__init__('no')\n"
            "        self.code = code\n\n\ndef f():\n    '''Raise.'''\n",
        ),
        "def f(): raise Mine(7)",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept Exception as e:\n    assert str(e) == 'worded'"),
        "class Mine(Exception):\n    def __str__(self): return 'worded'\ndef f(): raise Mine(1)",
        1,
    ),
    (
        "",
        check(
            "f", "try:\n    candidate()\nexcept UnicodeDecodeError as e:\n    assert e.start == 0\nelse:\n    assert 0"
        ),
        "def f(): b'\\xff'.decode()",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False"),
        "def f(): 1 / 0",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept OSError as e:\n    assert (e.errno, e.filename) == (2, 'p')"),
        "def f(): raise FileNotFoundError(2, 'no', 'p')",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept ValueError as e:\n    assert len(str(e)) == 20000"),
        "def f(): raise ValueError('x' * 20000)",
        1,
    ),
    (
        "",
        check("f", "try:\n    candidate()\nexcept SystemExit as e:\n    assert e.code == 3\nelse:\n    assert False"),
        "import sys\ndef f(): sys.exit(3)",
        1,
    ),
    ("", check("f", "assert candidate() == 1"), "def f(): raise SystemExit", 0),
    # Annotations are what they are in a file of its own, and a module's name leads to the module.
    *(
        (
            "",
            check("f", "assert candidate(1).x == 1\nassert candidate.__name__ == 'f'"),
            f"{first}from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(n): return P(n)",
            1,
        )
        for first in ("", "from __future__ import annotations\n")
    ),
    (
        "",
        {"function": "f", "tests": [{"input": [], "output": True}]},
        "def f(n: int = 0): return f.__annotations__['n'] is int",
        1,
    ),
    # Results that are no plain data.
    ("openai/human-eval#60", check("f", "assert list(candidate(3)) == [0, 1, 2]"), "def f(n): yield from range(n)", 1),
    ("", check("f", "assert list(candidate(3)) == [0, 1, 2]"), "def f(n): yield from range(n + 1)", 0),
    ("", check("f", "assert list(candidate([1, 2])) == [2, 4]"), "def f(x): return map(lambda v: 2 * v, x)", 1),
    (
        "",
        check("f", "g = candidate()\nassert [next(g), next(g)] == [0, 1]"),
        "import itertools\nf = itertools.count",
        1,
    ),
    (
        "",
        check("f", "g = candidate()\nnext(g)\nassert g.send(5) == 10"),
        "def f():\n    x = 0\n    while True: x = 2 * (yield x)",
        1,
    ),
    ("", check("f", "assert sum(candidate(4)) == 6\nassert candidate(4)[2] == 2"), "def f(n): return range(n)", 1),
    ("", check("f", "assert sorted(candidate({'b': 1, 'a': 2})) == ['a', 'b']"), "def f(d): return d.keys()", 1),
    ("", check("f", "assert candidate(3)(4) == 7"), "def f(n): return lambda x: x + n", 1),
    (
        "",
        check("f", "c = candidate()\nc()\nassert c() == 2"),
        "def f():\n    n = 0\n    def count():\n        nonlocal n\n        n += 1\n        return n\n    return count",
        1,
    ),
    ("", check("f", "assert candidate(lambda x: x + 1, 3) == 8"), "def f(g, n): return 2 * g(n)", 1),
    ("", check("f", "seen = []\ncandidate(seen.append)\nassert seen == [1, 2]"), "def f(g):\n    g(1)\n    g(2)", 1),
    ("", check("f", "assert candidate(iter([1, 2])) == 3"), "f = sum", 1),
    (
        "",
        check("f", "from fractions import Fraction\nassert candidate(1, 2) == Fraction(1, 2)"),
        "from fractions import Fraction\ndef f(a, b): return Fraction(a, b)",
        1,
    ),
    (
        "",
        check("f", "from decimal import Decimal\nassert candidate() == Decimal('0.10')"),
        "from decimal import Decimal\ndef f(): return Decimal('0.1')",
        1,
    ),
    (
        "",
        check("f", "import datetime\nassert candidate(2024) == datetime.date(2024, 2, 29)"),
        "import datetime\ndef f(y): return datetime.date(y, 2, 29)",
        1,
    ),
    (
        "",
        check(
            "f",
            "from datetime import datetime, timedelta\nassert candidate(datetime(2024, 1, 1)) == datetime(2024, 1, 2)"
            "\nassert candidate(datetime(2024, 1, 1)) - datetime(2024, 1, 1) == timedelta(1)",
        ),
        "from datetime import timedelta\ndef f(d): return d + timedelta(1)",
        1,
    ),
    (
        "",
        check("Stack", "s = candidate()\ns.push(3)\nassert s.pop() == 3 and s.size == 0"),
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop()\n    @property\n    def size(self): return len(self.items)",
        1,
    ),
    (
        "",
        check(
            "f",
            "a = Node(1, Node(2))\nb = candidate(a)\nassert (b.value, b.next.value, b.next.next) == (2, 1, None)",
            "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n\n\n"
            "def f(head):\n    '''Reverse.'''\n",
        ),
        "def f(head):\n    last = None\n    while head is not None:\n"
        "        head.next, last, head = last, head, head.next\n"
        "    return last",
        1,
    ),
    # Results that are no data, but have a length and items; views of dictionaries and named tuples are data.
    (
        "",
        check("f", "s = candidate([1, 2, 3])\nassert len(s) == 3 and s[0] == 3 and s[-1] == 1 and s[1:] == [2, 1]"),
        "class S:\n    def __init__(self, a): self.a = a[::-1]\n    def __len__(self): return len(self.a)\n"
        "    def __getitem__(self, k): return self.a[k]\ndef f(a): return S(a)",
        1,
    ),
    (
        "",
        check("f", "s = candidate()\ns['a'] = 2\nassert s['a'] == 4"),
        "class S:\n    def __setitem__(self, k, v): self.v = 2 * v\n    def __getitem__(self, k): return self.v\n"
        "def f(): return S()",
        1,
    ),
    (
        "",
        check("f", "assert len(candidate()) == 3"),
        "class S:\n    def __len__(self): return 2\ndef f(): return S()",
        0,
    ),
    ("", check("f", "assert len(candidate()) == 0"), "def f(): yield 1", 0),
    ("", check("f", "assert candidate([1, 2])[0](3) == 4"), "def f(a): return [lambda x, n=n: x + n for n in a]", 1),
    ("", check("f", "assert candidate()['two'](3) == 5"), "def f(): return {'two': lambda x: x + 2}", 1),
    (
        "",
        check("f", "k = candidate({'a': 1})\nassert k == {'a'} and len(k) == 1 and 'a' in k"),
        "def f(d): return d.keys()",
        1,
    ),
    ("", check("f", "assert sorted(candidate({'a': 1, 'b': 1})) == [1, 1]"), "def f(d): return d.values()", 1),
    ("", check("f", "assert candidate({'a': 1}) == {('a', 1)}"), "def f(d): return d.items()", 1),
    ("", check("f", "assert candidate({'a': 1}) == {('a', 2)}"), "def f(d): return d.items()", 0),
    ("", check("f", "m = candidate(b'abc')\nassert m[0] == 97 and len(m) == 3 and m == b'abc'"), "f = memoryview", 1),
    (
        "",
        check(
            "f", "p = candidate(1, 2)\nassert p == (1, 2) and p.x == 1 and p[1] == p.y == 2 and p._asdict()['x'] == 1"
        ),
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x, y): return P(x, y)",
        1,
    ),
    (
        "",
        check("f", "assert candidate(1, 2)[0].y == 2"),
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int\ndef f(x, y): return [P(x, y)]",
        1,
    ),
    (
        "",
        check(
            "f",
            "assert candidate(P(1, 2)) == 3",
            "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(p):\n    '''The sum.'''\n",
        ),
        "def f(p): return p.x + p.y",
        1,
    ),
    ("", check("f", "assert candidate().x == 2"), "class P(tuple):\n    _fields = ('x',)\ndef f(): return P([1])", 0),
    (
        "",
        check("f", "assert candidate() == (1, 2)"),
        "class P(tuple):\n    _fields = ('x', 'y')\n    def __eq__(self, o): return True\ndef f(): return P((1, 3))",
        0,
    ),
    (
        "",
        check(
            "f",
            "class Box:\n    def __getitem__(self, k): return 41\nassert candidate(Box()) == 42\n"
            "assert candidate(Box) == 0",
        ),
        "def f(b):\n    try: return b[0] + 1\n    except TypeError: return 0",
        1,
    ),
    # What a reference claims is worth nothing.
    ("", check("f", "assert candidate(3)"), "def f(n): return lambda: 1", 0),
    (
        "",
        check("f", "assert candidate(3) == 6"),
        "class A:\n    def __eq__(self, o): return True\ndef f(n): return A()",
        0,
    ),
    (
        "",
        check("f", "assert 7 in candidate(3)"),
        "class A:\n    def __contains__(self, o): return True\ndef f(n): return A()",
        0,
    ),
    ("", check("f", "assert list(candidate()) == [1]"), "def f():\n    while True: yield 1", 0),
    (
        "",
        check("f", "secret = [41]\ndef g(): return secret\nassert candidate(g, 1) == 42"),
        "def f(g, x): return g.__globals__",
        0,
    ),
    (
        "",
        check("f", "secret = 41\ndef g():\n    yield secret\nassert candidate(g()) == 42"),
        "def f(g): return g.gi_frame.f_back.f_locals['secret'] + 1",
        0,
    ),
    # A prompt without a body.
    (
        "evalplus/evalplus#92",
        check("f", "assert candidate(3) == [1, 2, 6]", "def f(n):\n    # The factorials of 1 to n.\n"),
        "from math import factorial\ndef f(n):\n    return [factorial(i) for i in range(1, n + 1)]\nprint(f(5))",
        1,
    ),
    (
        "",
        check("f", "assert candidate(3) == 6", "import math\n\ndef f(n):\n    '''The factorial"),
        "def f(n): return math.factorial(n)",
        1,
    ),
    ("", check("f", "assert candidate(3) == 6", "def f(n):\n"), "    return 2 * n", 1),
    (
        "",
        check("f", "assert candidate(3) == 6", "def f(n):\n", canonical_solution="    return 2 * n\n"),
        "def f(n):\n    return 2 * n",
        1,
    ),
    (
        "",
        check("f", "assert candidate(3) == 6", "def f(n):", canonical_solution="def f(n):\n    return 2 * n\n"),
        "def f(n):\n    return 2 * n",
        1,
    ),
    (
        "",
        check(
            "f",
            "assert candidate(3) == one() + 5",
            "def one():\n    return 1\n\n\n@staticmethod\ndef f(n):\n    # 2n\n",
        ),
        "def f(n):\n    return 2 * n * one()",
        1,
    ),
    # Long integers.
    (
        "NVIDIA-NeMo/Gym#2956",
        {"tests": [{"input": "5000\n", "output": f"{10**5000}\n"}]},
        "print(10 ** int(input()))",
        1,
    ),
    ("", {"tests": [{"input": "5000\n", "output": f"{10**5000}\n"}]}, "print(10 ** int(input()) + 1)", 0),
    ("", {"function": "f", "tests": [{"input": [5000], "output": 10**5000}]}, "def f(n): return 10 ** n", 1),
    ("", {"function": "f", "tests": [{"input": [10**5000], "output": 5001}]}, "def f(n): return len(str(n))", 1),
    (
        "",
        {"verifier_metadata": {"unit_tests": {"inputs": ["5000"], "outputs": [str(10**5000)], "fn_name": "f"}}},
        "def f(n): return 10 ** n",
        1,
    ),
    ("", check("f", "assert str(candidate(5000)) == '1' + 5000 * '0'"), "def f(n): return 10 ** n", 1),
    # Text that only some take for several lines.
    *(
        (
            "huggingface/smolagents#2652",
            {"function": "f", "tests": [{"input": [], "output": f"a{mark}b"}]},
            f"def f():\n    return 'a{mark}b'",
            1,
        )
        for mark in "\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85"
    ),
    # Fractions and decimals are numbers.
    (
        "",
        {"function": "f", "tests": [{"input": [], "output": 0.5}]},
        "from fractions import Fraction\ndef f(): return Fraction(1, 2)",
        1,
    ),
    (
        "",
        {"function": "f", "tests": [{"input": [], "output": 0.5}]},
        "from decimal import Decimal\ndef f(): return Decimal('0.4')",
        0,
    ),
]


@confined
@pytest.mark.parametrize(("report", "row", "source", "right"), CASES)
def test_the_reward_is_right(report: str, row: Row, source: str, right: int | None, monkeypatch) -> None:
    monkeypatch.setattr(grading, "SECONDS_A_TEST", 2)
    monkeypatch.setattr(grading, "SECONDS", 4)
    assert reward(row, source) == right


SLOW = (
    "import time\ndef f(n):\n    end = time.process_time() + 0.5\n"
    "    while time.process_time() < end: pass\n    return n + 1"
)
BY_FORM = [
    {"function": "f", "tests": [{"input": [n], "output": n + 1} for n in range(5)]},
    {"verifier_metadata": {"unit_tests": {"inputs": list("01234"), "outputs": list("12345"), "fn_name": "f"}}},
    check("f", "for n in range(5):\n    assert candidate(n) == n + 1"),
]


@confined
@pytest.mark.parametrize("row", BY_FORM)
def test_each_call_has_its_own_time(row: Row, monkeypatch) -> None:
    """allenai/olmo-eval#354."""
    monkeypatch.setattr(grading, "SECONDS_A_TEST", 2)
    monkeypatch.setattr(grading, "SECONDS", 20)
    assert reward(row, SLOW) == 1
    monkeypatch.setattr(grading, "SECONDS_A_TEST", 1)
    assert reward(row, SLOW.replace("0.5", "60")) == 0
    assert reward(row, "import time\ndef f(n):\n    time.sleep(9)\n    return n + 1") == 0


FENCES = [
    ("````python\na\n\n```\nb\n```\n````", "a\n\n```\nb\n```\n"),
    ("~~~python\na\n~~~", "a\n"),
    ("~~~~\na\n~~~\nb\n~~~~", "a\n~~~\nb\n"),
    ("```python\na\n    ```\n    b\n    ```\nc\n```", "a\n    ```\n    b\n    ```\nc\n"),
    ("- so:\n\n  ```python\n  if a:\n      b\n  ```", "if a:\n    b\n"),
    ("```python\r\na\r\nb\r\n```\r\n", "a\nb\n"),
    ("``` python\na\n```  ", "a\n"),
    ("```{.python}\na\n```", "a\n"),
    ('```py title="a.py"\na\n```', "a\n"),
    ("```python\na\n~~~\nb\n```", "a\n~~~\nb\n"),
    ("```python\na\n`````", "a\n"),
    ("```python\na\n```\nIt prints:\n```text\n3\n```", "a\n"),
    ("```python\na\n```\n```bash\npython a.py\n```", "a\n"),
    ("```python\na\n```\nBetter:\n```\nb\n```\n```json\n{}\n```", "b\n"),
    ("```json\n{}\n```", "{}\n"),
    ("````\na\n```", None),
    ("```python\na", None),
    ("``not a fence``\n```x```", None),
]


@pytest.mark.parametrize(("text", "inside"), FENCES)
def test_fences(text: str, inside: str | None) -> None:
    """huggingface/smolagents#2652."""
    found = last_block(text)
    assert (found and found.code) == inside


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("cpp", "cpp"),
        ("C++", "cpp"),
        ("c++17", "cpp"),
        ('cpp title="a"', "cpp"),
        ("{.cpp}", "cpp"),
        ("Python3", "python"),
        ("python3.11", "python"),
        ("python:a.py", "python"),
        ("", None),
        ("rust", None),
    ],
)
def test_the_language_of_a_fence(info: str, language: str | None) -> None:
    found = last_block(f"```{info}\na\n```")
    assert found is not None
    assert found.language == language


OUTPUTS = [
    ("NVIDIA-NeMo/Gym#2956", "Case #1: 0.333333333333", "Case #1: 0.333333", 1, 0),
    ("NVIDIA-NeMo/Gym#2956", "YES 0.333333333333", "YES 0.333333", 1, 0),
    ("NVIDIA-NeMo/Gym#2956", "mean = 0.3333333333", "mean = 0.3333333", 1, 0),
    ("", "Case #1: 0.333333333333", "Case #2: 0.333333", 0, 0),
    ("", "Case #1: 0.333333333333", "Case #1: 0.3334", 0, 0),
    ("", "YES 0.5", "NO 0.5", 0, 0),
    ("", "x=0.3333333333", "x=0.33333333", 1, 0),
    ("", "(0.3333333333, 1)", "(0.33333333, 1)", 1, 0),
    ("", "0.3333333333 3", "0.33333333 3", 1, 1),
    ("", "1000", "1_000", 0, 1),
    ("", "3", "4", 0, 0),
    ("", "v1.2.3", "v1.2.30", 0, 0),
    ("", "1000000", "1000001", 0, 0),
    ("", "a1.5b", "a1.50b", 0, 0),
]


@pytest.mark.parametrize(("report", "expected", "printed", "ours", "gyms"), OUTPUTS)
def test_numbers_among_words(report: str, expected: str, printed: str, ours: int, gyms: int) -> None:
    assert same_output(expected, printed) == bool(ours)
    assert same_output(expected, printed, gym=True) == bool(gyms)
