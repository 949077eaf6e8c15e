"""Calls on which public verifiers and parsers were reported to be wrong, with the right reward and the report."""

import json
from typing import Any

import pytest

from cascade.chat import Row, parse_response, response_from_openai
from cascade.environments.tool_calling import ENVIRONMENT

STRING = {"type": "string"}


def row(properties: dict[str, Any], expected: dict[str, Any], **fields: Any) -> Row:
    schema = {"type": "object", "properties": properties, **fields}
    tool = {"type": "function", "name": "f", "parameters": schema}
    return {
        "responses_create_params": {"input": "?", "tools": [tool]},
        "ground_truth": [{"name": "f", "arguments": json.dumps(expected)}],
    }


def xml(**values: str) -> str:
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    return f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>"


def as_json(**values: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'f', 'arguments': values})}\n</tool_call>"


def reward(task: Row, text: str) -> float | None:
    ENVIRONMENT.check_row(task)
    return ENVIRONMENT.verify(task, parse_response(text, thinking=False)).reward


TAGGED = (
    "Close it with </tool_call> and go on.",
    "A value ends with </parameter> here.",
    "one\n</parameter>\ntwo",
    "Then </function> follows.",
    "</function>\n</tool_call>\nends a call",
    "Write <parameter=x> first",
    "As in\n<tool_call>\n<function=g>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>\n, for example.",
    "<tool_call>{}</tool_call>",
)


@pytest.mark.parametrize("text", TAGGED)
@pytest.mark.parametrize("write", [xml, as_json])
def test_a_tag_within_a_value_is_text(text: str, write: Any) -> None:
    """vllm-project/vllm#45167."""
    task = row({"title": STRING, "body": STRING}, {"title": "t", "body": text})
    assert reward(task, write(title="t", body=text)) == 1
    assert reward(task, write(title="t", body=text + "!")) == 0


OSLO = "<parameter=city>\nOslo\n</parameter>\n"
DROPPED = [
    ("vllm-project/vllm#23099", OSLO + "<parameter=unit>\nF\n"),
    ("vllm-project/vllm#39771", OSLO + "<parameter=unit F\n</parameter>\n"),
    ("", "<parameter=unit>\nF\n" + OSLO),
    ("", OSLO + "unit = F\n"),
    ("", OSLO + "and\n<parameter=unit>\nF\n</parameter>\n"),
    ("", "<parameter=city>\nParis\n</parameter>\n" + OSLO),
    ("", "<parameter=city>Oslo<parameter=unit>F</parameter>"),
    ("", "<parameter>\ncity\n</parameter>\n" + OSLO),
]


@pytest.mark.parametrize(("report", "inside"), DROPPED)
@pytest.mark.parametrize("agent", ["", "single_step_tool_use_with_argument_comparison"])
def test_what_is_no_parameter_spoils_the_call(report: str, inside: str, agent: str) -> None:
    task = row({"city": STRING, "unit": STRING}, {"city": "Oslo"}, required=["city"])
    if agent:
        action = {"type": "function_call", "name": "f", "arguments": '{"city": "Oslo"}'}
        task |= {"expected_action": action, "agent_ref": {"name": agent}}
    call = "<tool_call>\n<function=f>\n{}</function>\n</tool_call>"
    assert reward(task, call.format(OSLO)) == 1
    assert reward(task, call.format(inside)) == 0
    assert parse_response(call.format(inside), thinking=False).malformed


def test_an_unclosed_parameter_does_not_take_the_next_call_with_it() -> None:
    response = parse_response(
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>\n" + xml(b="2"), thinking=False
    )
    assert response.malformed
    assert [call.arguments for call in response.tool_calls] == [{"b": 2}]


@pytest.mark.parametrize(
    "text", ["1.10", "2.50", "1e3", '{"a":1}', "[1,2]", "007", "true", "null", "NaN", "90210", '"quoted"', "1.0", "-0"]
)
def test_text_that_reads_as_json_is_not_rewritten(text: str) -> None:
    """PrimeIntellect-ai/renderers#52."""
    task = row({"key": STRING}, {"key": text})
    assert reward(task, xml(key=text)) == 1
    assert reward(task, as_json(key=text)) == 1
    assert reward(task, xml(key=text + "0")) == 0


TEXT_OR = [
    ("sgl-project/sglang#35914", {"type": ["string", "null"]}, {}),
    ("mcp-use/mcp-use#1804", {"anyOf": [STRING, {"type": "null"}]}, {}),
    ("", {"oneOf": [STRING, {"type": "null"}]}, {}),
    ("", {"$ref": "#/$defs/key"}, {"$defs": {"key": STRING}}),
    ("", {"allOf": [{"$ref": "#/definitions/key"}]}, {"definitions": {"key": {"type": ["string", "null"]}}}),
    ("", {"enum": ["90210", "1.10"]}, {}),
    ("", {"type": "string", "enum": ["90210", "1.10"]}, {}),
    ("", {"const": "90210"}, {}),
    ("", {"type": ["string", "integer"]}, {}),
    ("", {}, {}),
]


@pytest.mark.parametrize(("report", "schema", "definitions"), TEXT_OR)
def test_text_where_the_schema_also_allows_something_else(report: str, schema: Any, definitions: Any) -> None:
    task = row({"key": schema}, {"key": "90210"}, required=["key"], **definitions)
    assert reward(task, xml(key="90210")) == 1
    assert reward(task, xml(key="90211")) == 0


def test_the_other_side_of_a_union() -> None:
    number = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert reward(row({"key": number}, {"key": 5}), xml(key="5")) == 1
    assert reward(row({"key": number}, {"key": None}), xml(key="null")) == 1
    assert reward(row({"key": {"type": ["string", "integer"]}}, {"key": 5}), xml(key="5")) == 1
    assert reward(row({"key": {"type": ["string", "null"]}}, {"key": None}), xml(key="null")) == 1
    assert reward(row({"key": {"enum": [1, 2]}}, {"key": 1}), xml(key="1")) == 1
    assert reward(row({"key": {"type": "integer"}}, {"key": 5}), xml(key="five")) == 0


BOOLEANS = [
    ("dottxt-ai/outlines#1798", {"count": 1}, {"count": True}),
    ("dottxt-ai/outlines#1798", {"count": 0}, {"count": False}),
    ("", {"on": True}, {"on": 1}),
    ("", {"items": [1, 2]}, {"items": [True, 2]}),
    ("", {"o": {"n": 0}}, {"o": {"n": False}}),
    ("", {"x": 1.0}, {"x": True}),
]


@pytest.mark.parametrize(("report", "expected", "made"), BOOLEANS)
def test_true_is_no_number(report: str, expected: Any, made: Any) -> None:
    """Against an expected action, in both directions, and against our own ground truth."""
    task = row({name: {} for name in expected}, expected)
    action = {"type": "function_call", "name": "f", "arguments": json.dumps(expected)}
    for each in (task, {**task, "expected_action": action}):
        assert reward(each, as_json(**expected)) == 1
        assert reward(each, as_json(**made)) == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_arguments_with_what_json_has_not(value: str) -> None:
    """comet-ml/opik#8455."""
    task = row({"x": {"type": "number"}}, {"x": 1})
    item = {"type": "function_call", "name": "f", "arguments": f'{{"x": {value}}}'}
    verdict = ENVIRONMENT.verify(task, response_from_openai({"output": [item]}))
    assert (verdict.reward, "JSON" in verdict.reason) == (0, True)
    assert reward(task, xml(x=value)) == 0
