"""What counts as the answer, how rows are read, how values and outputs are compared."""

import base64
import json
import zlib

import pytest

from cascade.chat import Response
from cascade.environments.code import grading
from cascade.environments.code.answers import Answer, last_block
from cascade.environments.code.inside import values
from cascade.environments.code.outputs import same_output
from cascade.environments.code.problems import Calls, Check, Streams, problem_of
from cascade.environments.registry import environment_of
from cascade.errors import RowError
from tests.environments.code_problems import ADD, ECHO, TOP, code


def test_the_last_complete_block_is_the_answer():
    text = "```python\nfirst\n```\ntext ```inline``` more\n```C++\nlast\n  ```\n```python\nopen"
    assert last_block(text) == Answer("last\n", "cpp")
    assert last_block("```\na\n```") == Answer("a\n", None)
    assert last_block("  ```py\n  a\n  ```") == Answer("  a\n", "python")
    assert last_block("```python\nx = '```'\n```") == Answer("x = '```'\n", "python")


@pytest.mark.parametrize("text", ["", "no code", "```python\nopen", "```", "`code`", "```python\n```", "```\n\n```"])
def test_without_a_complete_block_there_is_no_answer(text):
    result = code.verify(ADD, Response(text))
    assert (result.reward, result.reason) == (0.0, "the response has no complete code block")


# what the rows are


def test_rows_of_all_forms_are_read():
    assert problem_of(ADD) == Calls("add", [[2, 3], [-1, 1]], [5, 0], prelude=False)
    assert problem_of(ECHO) == Streams(["2 3\n", "-1 1\n"], ["5\n", "0\n"], prelude=False)
    tests = {"inputs": ["[1, 2]\n3"], "outputs": ["6"], "fn_name": "total"}
    expected = Calls("total", [[[1, 2], 3]], [6], prelude=True)
    assert problem_of({"verifier_metadata": {"unit_tests": tests}}) == expected
    packed = base64.b64encode(zlib.compress(json.dumps(tests).encode())).decode()
    again = {"packed": packed, "fn_name": "total"}
    assert problem_of({"verifier_metadata": {"unit_tests": again}}) == expected
    check = problem_of(TOP)
    assert isinstance(check, Check)
    assert check.reference == TOP["prompt"] + TOP["canonical_solution"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no_tests"),
        ({"function": "f", "tests": []}, "no_tests"),
        ({"function": "f", "tests": [{"input": [1]}]}, "bad_tests"),
        ({"function": "f", "tests": ["x"]}, "bad_tests"),
        ({"function": "not a name", "tests": ADD["tests"]}, "bad_tests"),
        ({"function": "f", "tests": [{"input": 1, "output": 1}]}, "bad_tests"),
        ({"function": None, "tests": [{"input": [1], "output": "1"}]}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": {}}}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": None}}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": {"inputs": [], "outputs": []}}}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": {"inputs": ["1"], "outputs": ["1", "2"]}}}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": {"inputs": ["1,"], "outputs": ["1"], "fn_name": "f"}}}, "bad_tests"),
        ({"verifier_metadata": {"unit_tests": {"packed": "%%%"}}}, "bad_tests"),
        ({**TOP, "entry_point": None}, "bad_tests"),
        ({**ECHO, "language": "cobol"}, "bad_language"),
        ({**ADD, "language": "cpp"}, "bad_language"),
    ],
)
def test_bad_rows_are_rejected_with_a_reason(row, reason):
    with pytest.raises(RowError) as raised:
        code.check_row(row)
    assert raised.value.code == reason
    assert str(raised.value).startswith("code: ")


def test_nemo_gyms_name_leads_here():
    assert environment_of({"agent_ref": {"name": "code_gen_simple_agent"}}) is code


# how outputs and values are compared


@pytest.mark.parametrize(
    ("expected", "printed", "is_same"),
    [
        ("1 2\n3\n", "\n  1 2  \n3\n\n", True),
        ("1 2\n", "1  2\n", True),
        ("a b\n", "a  b\n", False),
        ("1\n\n2\n", "1\n2\n", False),
        ("0.5\n", "0.50000001\n", True),
        ("0.5\n", "0.5001\n", False),
        ("1000000.0", "1000000.9", True),
        ("1", "1.0000001", True),
        ("50000000000000000", "50000000000000001", False),
        ("3", "3 3", False),
        ("nan", "nan ", True),
        ("inf", "1e999999999999", False),
        ("YES", "yes", False),
        ("", "", True),
        ("1", "", False),
        ("1", "1e99999999999999999999", False),
    ],
)
def test_outputs_are_compared_as_in_nemo_gym(expected, printed, is_same):
    assert same_output(expected, printed) is is_same


class Sly(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    ("expected", "value", "is_same"),
    [
        (1, 1, True),
        (1, True, False),
        (True, 1, False),
        (1, 1.0, True),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.31, False),
        (1, "1", False),
        ("1", 1, False),
        (None, 0, False),
        (None, None, True),
        ([1, 2], (1, 2), True),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], {1, 2}, False),
        ([[1], []], [(1,), []], True),
        ({"1": 2}, {1: 2}, True),
        ({"a": 2.0}, {"a": 2}, True),
        ({"a": 2}, {"a": 2, "b": 3}, False),
        ({"True": 1}, {True: 1}, False),
        ("a", b"a", False),
        (10**40, 10**40, True),
        (10**40, 10**40 + 1, False),
        (float("nan"), float("nan"), True),
        (float("inf"), 10**400, False),
        (2, Sly(3), False),
        (2, Sly(2), True),
        ("x", 1j, False),
    ],
)
def test_values_are_compared_by_type_and_content(expected, value, is_same):
    crossed = json.loads(json.dumps(values.encode(value)))
    assert values.same(expected, crossed) is is_same


@pytest.mark.parametrize(
    "value", [[], (1, (2.5, None)), {1: "a", (1, 2): [b"\x00"]}, {1, 2}, frozenset("a"), 1j, -(10**30), "\ud800", -0.0]
)
def test_values_cross_unchanged(value):
    again = values.decode(json.loads(json.dumps(values.encode(value))))
    assert repr(again) == repr(value)


@pytest.mark.parametrize("value", [object(), len, int, range(3), [object()], iter([])])
def test_what_is_not_plain_data_does_not_cross(value):
    with pytest.raises(TypeError):
        values.encode(value)


@pytest.mark.parametrize("encoded", [{"int": "zz"}, {"what": []}, {"int": 5}, {"set": "ab"}, {}, {"int": "1", "b": 2}])
def test_malformed_values_are_refused(encoded):
    with pytest.raises(ValueError, match=r".*"):
        values.decode(encoded)
    assert grading._same([1], encoded) is False
    assert grading._same(1, encoded) is False
