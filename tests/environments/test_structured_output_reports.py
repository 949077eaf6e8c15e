"""Documents on which public checkers and parsers were reported to be wrong, with the right reward and the report."""

import json
from typing import Any

import pytest

from cascade.chat import Response, Row, parse_response
from cascade.environments.structured_output import ENVIRONMENT

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
NULL, BOOLEAN = {"type": "null"}, {"type": "boolean"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def many(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def reward(kind: str, schema: Any, text: str, **fields: Any) -> float | None:
    row: Row = {"schema_str": json.dumps(schema), "schema_type": kind, **fields}
    ENVIRONMENT.check_row(row)
    return ENVIRONMENT.verify(row, Response(text)).reward


YAML = [
    ("python-jsonschema/check-jsonschema#116", of(day={**STRING, "format": "date"}), "day: 2026-03-01", 1, 0),
    ("linkml/linkml#1532", of(at={**STRING, "format": "date-time"}), "at: 2026-03-01T13:00:00Z", 1, 0),
    ("schemathesis/schemathesis#305", of(days=many(STRING)), "days:\n  - 2026-03-01\n  - 2026-03-02", 1, 0),
    ("", of(country=STRING), "country: NO", 1, 0),
    ("", of(answer=STRING), "answer: yes", 1, 0),
    ("", of(on=BOOLEAN), "on: true", 1, 0),
    ("", of(flag=BOOLEAN), "flag: yes", 1, 1),
    ("", of(time=STRING), "time: 12:30", 1, 0),
    ("", of(time=STRING), "time: 12:30:45", 1, 0),
    ("", of(x=NUMBER), "x: 1e3", 1, 0),
    ("", of(x=NUMBER), "x: 1.5e3", 1, 0),
    ("", of(n=INTEGER), "n: 0o17", 1, 0),
    ("", of(n=INTEGER), "n: 012", 1, 1),
    ("", of(n=STRING), "n: 1_000", 1, 0),
    ("", of(n=STRING), "n: 5", 0, 0),
    ("", of(n=STRING), "n: '5'", 1, 1),
    ("", of(n=STRING), "n: null", 0, 0),
    ("", of(n=NULL), "n:", 1, 1),
    ("", of(x=NUMBER), "x: .nan", 0, 1),
    ("", of(x=NUMBER), "x: .inf", 0, 1),
    ("", of(b=of(n=INTEGER)), "a: &a {n: 1}\nb: {<<: *a}", 0, 0),
    ("", of(a=of(n=INTEGER), b=of(n=INTEGER)), "a: &a {n: 1}\nb: {<<: *a}", 1, 1),
]


@pytest.mark.parametrize(("report", "schema", "text", "right", "gyms"), YAML)
def test_yaml(report: str, schema: Any, text: str, right: int, gyms: int) -> None:
    assert reward("yaml", schema, text) == right
    assert reward("yaml", schema, text, grading="gym") == gyms


def test_values_of_yaml_are_those_of_version_1_2() -> None:
    schema = of(n=INTEGER)
    assert reward("yaml", schema, "n: 012", expected={"n": 12}) == 1
    assert reward("yaml", schema, "n: 0o12", expected={"n": 10}) == 1
    assert reward("yaml", schema, "n: 012", expected={"n": 13}) == 0


MEMBERS = of(team=of(member=many(of(name=STRING))))
XML = [
    ("martinblech/xmltodict#368", MEMBERS, "<team><member><name>Ida</name></member></team>", 1, 0),
    (
        "martinblech/xmltodict#73",
        of(cart=of(item=many(of(sku=INTEGER)))),
        "<cart><item><sku>5</sku></item></cart>",
        1,
        0,
    ),
    (
        "martinblech/xmltodict#201",
        of(log=of(entry=many(of(tags=many(STRING))))),
        "<log><entry><tags>a</tags><tags>b</tags></entry></log>",
        1,
        0,
    ),
    ("", MEMBERS, "<team><member><name>A</name></member><member><name>B</name></member></team>", 1, 1),
    ("", MEMBERS, "<team><member><nick>Ida</nick></member></team>", 0, 0),
    ("", of(r=of(tags=many(STRING))), "<r><tags><tag>a</tag></tags></r>", 1, 1),
    ("", of(r=of(tags=many(STRING))), "<r><tags><tag>a</tag><tag>b</tag></tags></r>", 1, 1),
    ("", of(r=of(tags=many(STRING))), "<r><tags>a</tags></r>", 1, 1),
    ("", of(r=of(tags=many(STRING))), "<r><tags/></r>", 1, 1),
    ("", of(r=of(people=many(of(name=STRING)))), "<r><people><person><name>A</name></person></people></r>", 1, 1),
    (
        "",
        of(r=of(people=many(of(name=STRING, age=INTEGER)))),
        "<r><people><person><name>A</name><age>3</age></person></people></r>",
        1,
        1,
    ),
    (
        "",
        of(r=of(people=many({"$ref": "#/$defs/p"}))) | {"$defs": {"p": of(name=STRING)}},
        "<r><people><name>A</name></people></r>",
        1,
        0,
    ),
    ("", of(name=STRING, age=INTEGER), "<person><name>A</name><age>3</age></person>", 1, 0),
    (
        "",
        of(r=of(grid=many(many(INTEGER)))),
        "<r><grid><row><c>1</c><c>2</c></row><row><c>3</c><c>4</c></row></grid></r>",
        1,
        1,
    ),
    # Branches and references.
    (
        "mcp-use/mcp-use#1804",
        of(r=of(n={"anyOf": [INTEGER, NULL]}, name=STRING)),
        "<r><n>5</n><name>a</name></r>",
        1,
        0,
    ),
    ("", of(r=of(n={"anyOf": [INTEGER, NULL]})), "<r><n/></r>", 1, 1),
    ("", of(r=of(n={"anyOf": [INTEGER, NULL]})), "<r><n>x</n></r>", 0, 0),
    ("", of(r=of(n={"oneOf": [BOOLEAN, NUMBER]})), "<r><n>2.5</n></r>", 1, 0),
    ("", of(r=of(n={"$ref": "#/$defs/n"})) | {"$defs": {"n": INTEGER}}, "<r><n>5</n></r>", 1, 0),
    ("", of(r=of(n={"$ref": "#/$defs/n"})) | {"$defs": {"n": INTEGER}}, "<r><n>five</n></r>", 0, 0),
    (
        "",
        of(r=of(n={"allOf": [{"$ref": "#/$defs/n"}, {"minimum": 3}]})) | {"$defs": {"n": INTEGER}},
        "<r><n>5</n></r>",
        1,
        0,
    ),
    ("", of(r=of(n={"enum": [1, 2]})), "<r><n>2</n></r>", 1, 0),
    ("", of(r=of(n={"enum": [1, 2]})), "<r><n>3</n></r>", 0, 0),
    ("", of(r=of(n={"enum": ["1", "2"]})), "<r><n>2</n></r>", 1, 1),
    ("", of(r=of(n={"const": True})), "<r><n>true</n></r>", 1, 0),
    ("", of(r=of(n={"type": "integer", "enum": [1, 2]})), "<r><n>2</n></r>", 1, 1),
    ("", of(r=of(n={"type": ["string", "null"]})), "<r><n>5</n></r>", 1, 1),
    ("", of(r=of(p={"anyOf": [of(n=INTEGER), NULL]})), "<r><p><n>5</n></p></r>", 1, 0),
    ("", of(r=of(p={"anyOf": [of(a=INTEGER), of(b=many(INTEGER))]})), "<r><p><b>5</b></p></r>", 1, 0),
    (
        "",
        of(node={"$ref": "#/$defs/node"})
        | {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"v": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, NULL]}},
                }
            }
        },
        "<node><v>1</v><next><v>2</v><next/></next></node>",
        1,
        0,
    ),
    # Numbers.
    ("", of(r=of(n=INTEGER)), "<r><n>1_000</n></r>", 0, 1),
    ("", of(r=of(n=NUMBER)), "<r><n>nan</n></r>", 0, 1),
    ("", of(r=of(n=NUMBER)), "<r><n>Infinity</n></r>", 0, 1),
    ("", of(r=of(n=INTEGER)), "<r><n>\uff15</n></r>", 0, 1),
    ("", of(r=of(n=INTEGER)), "<r><n> 5 </n></r>", 1, 1),
    ("", of(r=of(n=NUMBER)), "<r><n>-1.5e3</n></r>", 1, 1),
    ("", of(r=of(n=INTEGER)), "<r><n>007</n></r>", 1, 1),
]


@pytest.mark.parametrize(("report", "schema", "text", "right", "gyms"), XML)
def test_xml(report: str, schema: Any, text: str, right: int, gyms: int) -> None:
    assert reward("xml", schema, text) == right
    assert reward("xml", schema, text, grading="gym") == gyms


OPTIONAL = many(of(n={"anyOf": [INTEGER, NULL]}, name=STRING))
CSV = [
    ("mcp-use/mcp-use#1804", OPTIONAL, "n,name\n5,a\n", 1, 0),
    ("mcp-use/mcp-use#1804", OPTIONAL, "n,name\n,a\n", 1, 0),
    ("", OPTIONAL, "n,name\nx,a\n", 0, 0),
    ("", many(of(n={"type": ["integer", "null"]})), 'n\n""\n', 1, 1),
    ("", many({"$ref": "#/$defs/r"}) | {"$defs": {"r": of(n=INTEGER)}}, "n\n5\n", 1, 0),
    ("", many(of(n={"$ref": "#/$defs/n"})) | {"$defs": {"n": NUMBER}}, "n\n5\n", 1, 0),
    ("", many(of(n={"enum": [1, 2]})), "n\n2\n", 1, 0),
    ("", many(of(n=STRING)), "n\n5\n", 1, 1),
    ("", many(of(n=BOOLEAN)), "n\nTrue\n", 1, 1),
    ("mcp-use/mcp-use#1804", many(of(n=INTEGER, name=STRING)), "n,name\n1_000,a\n", 0, 1),
    ("mcp-use/mcp-use#1804", many(of(x=NUMBER, name=STRING)), "x,name\nnan,a\n", 0, 1),
    ("mcp-use/mcp-use#1804", many(of(x=NUMBER, name=STRING)), "x,name\ninfinity,a\n", 0, 1),
    ("", many(of(x=NUMBER)), "x\n-inf\n", 0, 1),
    ("", many(of(x=NUMBER)), "x\n1e400\n", 0, 1),
    ("", many(of(x=NUMBER)), "x\n1_0.5\n", 0, 1),
    ("", many(of(a=STRING, b=STRING)), "a,b\nx\n", 0, 0),
]


@pytest.mark.parametrize(("report", "schema", "text", "right", "gyms"), CSV)
def test_csv(report: str, schema: Any, text: str, right: int, gyms: int) -> None:
    assert reward("csv", schema, text) == right
    assert reward("csv", schema, text, grading="gym") == gyms


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "[NaN]", '{"a": -Infinity}'])
def test_json_has_no_such_numbers(value: str) -> None:
    """comet-ml/opik#8455."""
    assert reward("json", of(score={}), f'{{"score": {value}}}') == 0
    assert reward("json", of(score={}), f'{{"score": {value}}}', grading="gym") == 1
    assert reward("json", of(score={}), f'{{"score": "{value.strip("[]")}"}}') == (0 if '"' in value else 1)


def test_toml_numbers() -> None:
    assert reward("toml", of(x=NUMBER), "x = nan") == 0
    assert reward("toml", of(x=INTEGER), "x = 1_000") == 1, "TOML writes integers so"


def test_arguments_in_the_chat_templates_format_take_the_schemas_types() -> None:
    row: Row = {"schema_str": json.dumps(of(code=STRING, n=INTEGER)), "response_mode": "tool_call", "tool_name": "f"}
    ENVIRONMENT.check_row(row)
    parameters = "<parameter=code>\n1.10\n</parameter>\n<parameter=n>\n{}\n</parameter>\n"
    call = f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>"
    for written, right in (("5", 1), ("five", 0), ("NaN", 0)):
        verdict = ENVIRONMENT.verify(row, parse_response(call.format(written), thinking=False))
        assert verdict.reward == right
    assert verdict.extracted["code"] == "1.10"
