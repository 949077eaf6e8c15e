"""Tool calls of each dialect, as models write them: right, broken, and hostile."""

import pytest

from cascade.chat import Response, ToolCall, parse_response
from cascade.chat.dialects import DIALECTS

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
OSLO, PING = ToolCall("weather", {"city": "Oslo", "days": 3}), ToolCall("ping", {})


def read(name: str, text: str) -> Response:
    return parse_response(text, thinking=False, dialect=BY_NAME[name])


@pytest.mark.parametrize(
    ("name", "text", "calls"),
    [
        ("tool_call", '<tool_call>{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}</tool_call>', [OSLO]),
        (
            "python xml",
            "<tool_call>\n<function=f>\n<parameter=a>\nTrue\n</parameter>\n<parameter=b>\nNone\n</parameter>\n"
            "<parameter=c>\nTrueish\n</parameter>\n</function>\n</tool_call>",
            [ToolCall("f", {"a": True, "b": None, "c": "Trueish"})],
        ),
        (
            "glm",
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
            "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>ping\n</tool_call>",
            [OSLO, PING],
        ),
        ("glm", "<tool_call>ping</tool_call>", [PING]),
        ("llama", '{"name": "weather", "parameters": {"city": "Oslo", "days": 3}}', [OSLO]),
        ("llama", '<|python_tag|>{"type": "function", "name": "ping", "parameters": {}}', [PING]),
        ("llama", '{"name": "ping", "arguments": {}}; {"name": "ping", "parameters": {}}', [PING, PING]),
        ("mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}]', [OSLO]),
        ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Oslo", "days": 3}[TOOL_CALLS]ping[ARGS]{}', [OSLO, PING]),
        ("mistral", "[TOOL_CALLS]ping[CALL_ID]Ab3dEf6hI[ARGS]{}", [PING]),
        ("mistral", '[TOOL_CALLS]weather{"city": "Oslo", "days": 3}', [OSLO]),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
            '{"city": "Oslo", "days": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n'
            "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [OSLO, PING],
        ),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [PING],
        ),
        ("lfm", "<|tool_call_start|>[weather(city='Oslo', days=3), ping()]<|tool_call_end|>", [OSLO, PING]),
        (
            "lfm",
            '<|tool_call_start|>[a.b(x=-1.5, y=[true, None], z={"k": null, "s": "it\'s"})]<|tool_call_end|>',
            [ToolCall("a.b", {"x": -1.5, "y": [True, None], "z": {"k": None, "s": "it's"}})],
        ),
    ],
)
def test_calls_are_read(name: str, text: str, calls: list[ToolCall]) -> None:
    assert read(name, text) == Response("", None, tuple(calls))
    if name != "llama":
        assert read(name, f"I ask. {text}") == Response("I ask.", None, tuple(calls))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tool_call", '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
        ("tool_call", '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>'),
        ("tool_call", '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 20_000 + "</tool_call>"),
        ("glm", "<tool_call>weather\n<arg_key>city</arg_key>\n</tool_call>"),
        ("glm", "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo\n</tool_call>"),
        ("glm", "<tool_call>f" + "<arg_key>a</arg_key><arg_value>1</arg_value>" * 2 + "</tool_call>"),
        ("glm", "<tool_call>weather Oslo</tool_call>"),
        ("glm", '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'),
        ("glm", "<tool_call></tool_call>"),
        ("glm", "<tool_call>ping"),
        ("llama", '{"name": "weather", "parameters": {"city": "Oslo"'),
        ("llama", '{"name": "weather", "parameters": "Oslo"}'),
        ("llama", '{"name": "ping", "parameters": {}} and then'),
        ("llama", '{"name": "ping", "parameters": {}}; '),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS] []"),
        ("mistral", '[TOOL_CALLS] [{"arguments": {}}]'),
        ("mistral", "[TOOL_CALLS] ping"),
        ("mistral", "[TOOL_CALLS]ping[ARGS]{"),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>"),
        ("deepseek", "<｜tool▁calls▁begin｜>ping()<｜tool▁calls▁end｜>"),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁calls▁end｜>"),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜>"),
        ("lfm", "<|tool_call_start|>[ping()"),
        ("lfm", "<|tool_call_start|>[]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>ping()<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(1)]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(**{'a': 1})]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(a=__import__('os').getcwd())]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(a=1 if 1 else 2)]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(a={1: 2})]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(a='it's')]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>[ping(a=1, a=2)]<|tool_call_end|>"),
        ("lfm", "<|tool_call_start|>" + "[" * 5_000 + "<|tool_call_end|>"),
    ],
)  # fmt: skip
def test_what_is_broken_is_malformed_and_no_call(name: str, text: str) -> None:
    response = read(name, text)
    assert response.malformed
    assert response.tool_calls == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama", 'The call {"name": "ping", "parameters": {}} would do.'),
        ("llama", '{"name": "Ann", "age": 7}'),
        ("llama", '["name", "parameters"]'),
        ("glm", "<arg_key>a</arg_key>"),
        ("lfm", "[ping()]"),
        ("deepseek", "<｜tool▁call▁begin｜>ping"),
        ("mistral", "[1, 2]"),
    ],
)
def test_what_only_looks_like_a_call_is_text(name: str, text: str) -> None:
    assert read(name, text) == Response(text)


def test_a_value_of_glm_may_hold_tags_within() -> None:
    text = "<tool_call>note\n<arg_key>text</arg_key>\n<arg_value>a </arg_value> b <arg_key></arg_value>\n</tool_call>"
    assert read("glm", text).tool_calls == (ToolCall("note", {"text": "a </arg_value> b <arg_key>"}),)


def test_calls_before_and_after_a_broken_one_are_read() -> None:
    ping, broken = "<|tool_call_start|>[ping()]<|tool_call_end|>", "<|tool_call_start|>ping<|tool_call_end|>"
    response = read("lfm", ping + broken + ping)
    assert response.tool_calls == (PING, PING)
    assert response.malformed
