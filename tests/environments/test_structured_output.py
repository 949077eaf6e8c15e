import json
from pathlib import Path

import pytest

from cascade.chat import Response, ToolCall
from cascade.environments.registry import environment_of, get
from cascade.environments.structured_output import parsing
from cascade.errors import RowError

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "structured_outputs.jsonl"
OUTPUT = get("structured_output")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "pet": {"type": ["string", "null"]}},
}
PEOPLE = {
    "type": "array",
    "items": {"type": "object", "properties": {"name": {"type": "string"}, "tall": {"type": "boolean"}}},
}
TRIP = {
    "type": "object",
    "properties": {
        "trip": {
            "type": "object",
            "properties": {"stops": {"type": "array", "items": {"type": "string"}}, "price": {"type": "number"}},
        }
    },
}


def row(schema, form="json", **fields):
    return {"schema_str": json.dumps(schema), "schema_type": form, "response_mode": "text", **fields}


def reward(schema, form, text, **fields):
    sample = row(schema, form, **fields)
    OUTPUT.check_row(sample)
    verdict = OUTPUT.verify(sample, Response(text))
    assert verdict.reason
    return verdict.reward


@pytest.mark.parametrize(
    ("form", "schema", "text"),
    [
        ("json", PERSON, '{"name": "Ida", "age": 30, "pet": null}'),
        ("json", PERSON, ' {"pet": "cat", "age": 30.0, "name": ""} '),
        ("yaml", PERSON, "name: Ida\nage: 30\npet:"),
        ("yaml", TRIP, "trip:\n  stops: [Rome, Oslo]\n  price: 2.5"),
        ("toml", TRIP, '[trip]\nstops = ["Rome"]\nprice = 3'),
        ("xml", TRIP, "<trip><stops><s>Rome</s><s>Oslo</s></stops><price>2.5</price></trip>"),
        ("xml", TRIP, "<trip><stops><s>Rome</s></stops><price>2</price></trip>"),
        ("xml", TRIP, "<trip><stops/><price>2</price></trip>"),
        ("csv", PEOPLE, "name,tall\nIda,true\nBen,0"),
        ("csv", PEOPLE, 'tall,name\nFALSE,"Ida, B."'),
    ],
)
def test_accepted(form, schema, text):
    assert reward(schema, form, text) == 1.0


@pytest.mark.parametrize(
    ("form", "schema", "text"),
    [
        ("json", PERSON, '{"name": "Ida", "age": 30}'),  # all properties are required
        ("json", PERSON, '{"name": "Ida", "age": 30, "pet": null, "job": "judge"}'),  # and no others allowed
        ("json", PERSON, '{"name": "Ida", "age": "30", "pet": null}'),
        ("json", PERSON, '{"name": "Ida", "age": true, "pet": null}'),
        ("json", PERSON, '```json\n{"name": "Ida", "age": 30, "pet": null}\n```'),
        ("json", PERSON, 'Here: {"name": "Ida", "age": 30, "pet": null}'),
        ("json", PERSON, "name: Ida\nage: 30\npet:"),
        ("json", TRIP, '{"trip": {"stops": [1], "price": 2}}'),
        ("yaml", PERSON, "name: Ida\nage: '30'\npet:"),
        ("yaml", PERSON, "1: 2"),
        ("yaml", PERSON, "name: Ida\nage: 2020-01-01\npet:"),
        ("toml", TRIP, "trip = 3"),
        ("xml", TRIP, "<trip><stops><s>Rome</s></stops><price>cheap</price></trip>"),
        ("xml", TRIP, "<trip><stops>"),
        ("csv", PEOPLE, "name,tall\nIda,maybe"),
        ("csv", PEOPLE, "name,tall\nIda"),
        ("csv", PEOPLE, "name,tall\nIda,true,extra"),
        ("csv", PEOPLE, "name\nIda"),
    ],
)
def test_rejected(form, schema, text):
    assert reward(schema, form, text) == 0.0


def test_branches_of_any_of_are_not_made_strict():
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "object", "properties": {"b": {"type": "string"}}}]}},
    }
    assert reward(schema, "json", '{"a": {}}') == 1.0
    assert reward(schema, "json", '{"a": {"c": 1}}') == 1.0
    assert reward(schema, "json", "{}") == 0.0


def test_a_property_may_be_called_properties():
    schema = {"type": "object", "properties": {"properties": {"type": "string"}}}
    assert reward(schema, "json", '{"properties": "x"}') == 1.0
    assert reward(schema, "json", "{}") == 0.0


def test_references_within_the_schema_are_followed():
    tree = {"properties": {"root": {"$ref": "#/$defs/node"}}, "$defs": {"node": {"properties": {"name": {}}}}}
    assert reward(tree, "json", '{"root": {"name": 1}}') == 1.0
    assert reward(tree, "json", '{"root": {}}') == 0.0
    assert reward({"$ref": "#"}, "json", "1") == 0.0  # never ends


def test_expected_values_are_compared():
    expected = {"name": "Ida", "age": 30, "pet": None}
    assert reward(PERSON, "json", json.dumps(expected), expected=expected) == 1.0
    assert reward(PERSON, "yaml", "pet: null\nage: 30\nname: Ida", expected=expected) == 1.0
    assert reward(PERSON, "json", '{"name": "Ida", "age": 31, "pet": null}', expected=expected) == 0.0
    assert reward(PEOPLE, "csv", "name,tall\nIda,true", expected=[{"name": "Ida", "tall": True}]) == 1.0
    assert reward(PEOPLE, "csv", "name,tall\nBen,true", expected=[{"name": "Ida", "tall": True}]) == 0.0
    anything = {"type": "object", "properties": {"a": {}}}
    assert reward(anything, "json", '{"a": 1}', expected={"a": True}) == 0.0


def called(sample, *calls, malformed=None):
    OUTPUT.check_row(sample)
    made = tuple(ToolCall(name, arguments) for name, arguments in calls)
    return OUTPUT.verify(sample, Response("text", None, made, malformed=malformed)).reward


def test_tool_call_mode():
    ida = {"name": "Ida", "age": 30, "pet": None}
    direct = row(PERSON, response_mode="tool_call", tool_name="give")
    assert called(direct, ("give", ida)) == 1.0
    assert called(direct, ("take", ida)) == 0.0
    assert called(direct, ("give", ida), ("give", ida)) == 0.0
    assert called(direct) == 0.0
    assert called(direct, ("give", ida), malformed="broken") == 0.0
    wrapped = row(PEOPLE, response_mode="tool_call", tool_name="give", tool_payload_key="result")
    assert called(wrapped, ("give", {"result": [{"name": "Ida", "tall": True}]})) == 1.0
    assert called(wrapped, ("give", {"result": {"name": "Ida"}})) == 0.0
    assert called(wrapped, ("give", {"name": "Ida", "tall": True})) == 0.0


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("json", "[" * 100_000),
        ("json", "9" * 10_000),
        ("yaml", "[" * 3_000),
        ("yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{n}: &{n} [{','.join([f'*{chr(ord(n) - 1)}'] * 9)}]\n" for n in "bcdefghi"
        )),
        ("yaml", "&a [*a]"),
        ("yaml", "a: 0x" + "f" * 50_000),
        ("yaml", "? [1, 2]\n: x"),
        ("yaml", "2020-01-01: x"),
        ("yaml", "!!python/object/apply:os.system ['exit 1']"),
        ("xml", "<a>" * 5_000 + "</a>" * 5_000),
        ("xml", '<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>'),
        ("toml", "a = " + "[" * 3_000),
        ("csv", '"' + "x" * 150_000),
        ("json", " " * (parsing.MAX_CHARACTERS + 1)),
    ],
)  # fmt: skip
def test_documents_made_to_do_harm_are_wrong_answers(form, text):
    verdict = OUTPUT.verify(row({}, form), Response(text + "\n1"))
    assert verdict.reward == 0.0
    json.dumps(verdict.extracted, default=str)


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        ({}, "bad_schema"),
        ({"schema_str": "{"}, "bad_schema"),
        ({"schema_str": "[]"}, "bad_schema"),
        ({"schema_str": '{"type": "oject"}'}, "bad_schema"),
        (row(PERSON, "ini"), "bad_format"),
        (row(PERSON, response_mode="telepathy"), "bad_response_mode"),
        (row(PERSON, expected={"name": "Ida"}), "bad_expected"),
    ],
)
def test_bad_rows_are_refused(sample, code):
    with pytest.raises(RowError) as caught:
        OUTPUT.check_row(sample)
    assert caught.value.code == code


def example_of(schema):
    """Something that fits the schema."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "enum" in schema:
        return schema["enum"][0]
    if kinds[0] == "object":
        return {name: example_of(child) for name, child in schema["properties"].items()}
    if kinds[0] == "array":
        return [example_of(schema["items"])]
    return {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "null": None}[kinds[0]]


def test_gym_rows_load_and_tell_right_from_wrong():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        assert environment_of(sample) is OUTPUT
        good = example_of(json.loads(sample["schema_str"]))
        key = sample["tool_payload_key"]
        assert called(sample, (sample["tool_name"], {key: good} if key else good)) == 1.0
        spoilt = [*good, 7] if isinstance(good, list) else good | {"one_more": 1}
        assert called(sample, (sample["tool_name"], {key: spoilt} if key else spoilt)) == 0.0
        assert called(sample, ("another_tool", {key: good} if key else good)) == 0.0
