import json
from pathlib import Path

import pytest

from cascade.chat import Response, ToolCall, parse_response, response_from_openai
from cascade.environments.registry import environment_of, get
from cascade.errors import RowError

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "workplace_assistant.jsonl"
TOOLS = get("tool_calling")

SCHEMAS = {
    "book": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}, "quiet": {"type": "boolean"}},
        "required": ["city", "nights"],
        "additionalProperties": False,
    },
    "call": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
}


def with_tools(schemas=SCHEMAS, **fields):
    tools = [{"type": "function", "name": name, "parameters": schema} for name, schema in schemas.items()]
    return {"responses_create_params": {"input": "Do it.", "tools": tools}, **fields}


def truth(*calls, **fields):
    return with_tools(ground_truth=[{"name": n, "arguments": json.dumps(a)} for n, a in calls], **fields)


def judge(row, *calls, content=""):
    TOOLS.check_row(row)
    return TOOLS.verify(row, Response(content, None, tuple(ToolCall(name, arguments) for name, arguments in calls)))


ROME = ("book", {"city": "Rome", "nights": 3})
PHONE = ("call", {"number": "12"})


@pytest.mark.parametrize(
    ("call", "reward"),
    [
        (ROME, 1.0),
        (("book", {"nights": 3, "city": " rome "}), 1.0),  # case and outer spaces do not count
        (("book", {"city": "Rome", "nights": 3.0}), 1.0),  # numbers by value
        (("book", {"city": "Rome", "nights": "3"}), 0.0),  # text where the schema asks for a number
        (("book", {"city": "Rome", "nights": True}), 0.0),
        (("book", {"city": "Rome", "nights": 4}), 0.0),
        (("book", {"city": "Rome"}), 0.0),
        (("book", {"city": "Rome", "nights": 3, "quiet": True}), 0.0),  # valid, but not asked for
        (("book", {"city": "Rome", "nights": 3, "view": 1}), 0.0),
        (("reserve", {"city": "Rome", "nights": 3}), 0.0),
    ],
)
def test_one_call(call, reward):
    verdict = judge(truth(ROME), call)
    assert verdict.reward == reward
    assert verdict.reason


def test_number_of_calls_and_order():
    assert judge(truth(ROME, PHONE), ROME, PHONE).reward == 1.0
    assert judge(truth(ROME, PHONE), PHONE, ROME).reward == 1.0
    assert judge(truth(ROME, PHONE, ordered=True), ROME, PHONE).reward == 1.0
    assert judge(truth(ROME, PHONE, ordered=True), PHONE, ROME).reward == 0.0
    assert judge(truth(ROME, PHONE), ROME).reward == 0.0
    assert judge(truth(ROME), ROME, ROME).reward == 0.0
    assert judge(truth(ROME, ROME), ROME, PHONE).reward == 0.0
    assert judge(truth(ROME), content="I booked it.").reward == 0.0
    assert judge(truth()).reward == 0.0
    assert judge(truth(), content="Nothing to do.").reward == 1.0


def test_calls_in_the_chat_format_get_their_types_from_the_schema():
    text = "<tool_call>\n<function=call>\n<parameter=number>\n12\n</parameter>\n</function>\n</tool_call>"
    assert TOOLS.verify(truth(PHONE), parse_response(text, thinking=False)).reward == 1.0
    broken = parse_response("<tool_call>\n<function=call>\n", thinking=False)
    verdict = TOOLS.verify(truth(PHONE), broken)
    assert verdict.reward == 0.0
    assert "not closed" in verdict.reason


OFFICE = {
    "email_search_emails": {"type": "object", "properties": {"query": {"type": "string"}}},
    "email_delete_email": {
        "type": "object",
        "properties": {"email_id": {"type": "string"}},
        "required": ["email_id"],
    },
    "email_send_email": {"type": "object", "properties": {"body": {"type": "string"}}, "required": ["body"]},
    "crm_update_customer": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("customer_id", "field", "new_value")},
        "required": ["customer_id", "field", "new_value"],
    },
}
SEARCH = ("email_search_emails", {"query": "Carlos"})
DELETE = ("email_delete_email", {"email_id": "00000057"})
SEND = ("email_send_email", {"body": "Thanks"})
LOST = ("crm_update_customer", {"customer_id": "00000012", "field": "status", "new_value": "Lost"})


def office(*calls):
    return truth(*calls, environment_name="workplace_assistant") | {
        "responses_create_params": with_tools(OFFICE)["responses_create_params"]
    }


def test_workplace_rows_compare_what_changes():
    assert judge(office(DELETE), SEARCH, DELETE).reward == 1.0
    assert judge(office(DELETE), ("email_delete_email", {}), DELETE).reward == 1.0
    assert judge(office(DELETE), DELETE, DELETE).reward == 1.0
    assert judge(office(DELETE, SEND), SEND, DELETE).reward == 1.0
    assert judge(office(SEND), ("email_send_email", {"body": "THANKS"})).reward == 1.0
    assert judge(office(SEND), SEND, SEND).reward == 0.0
    assert judge(office(DELETE), SEARCH, content="Done.").reward == 0.0
    assert judge(office(DELETE), DELETE, SEND).reward == 0.0
    assert judge(office(), SEARCH, content="There is none.").reward == 1.0
    assert judge(office(LOST), LOST).reward == 1.0
    shouted = ("crm_update_customer", {"customer_id": "00000012", "field": "status", "new_value": "LOST"})
    assert judge(office(LOST), shouted).reward == 0.0


def test_the_office_takes_names_of_entries_and_fields_and_blanks_as_they_are_written():
    move = {"customer_id": "000a", "field": "name", "new_value": "Risk Forum"}
    row = office(("crm_update_customer", move))
    assert judge(row, ("crm_update_customer", move | {"new_value": "RISK forum"})).reward == 1.0
    assert judge(row, ("crm_update_customer", move | {"new_value": " Risk Forum "})).reward == 0.0
    assert judge(row, ("crm_update_customer", move | {"field": "NAME"})).reward == 0.0
    assert judge(row, ("crm_update_customer", move | {"customer_id": "000A"})).reward == 0.0


def action(*calls, agent="single_step_tool_use_with_argument_comparison_agent"):
    entries = [{"type": "function_call", "name": n, "arguments": json.dumps(a)} for n, a in calls]
    expected = entries[0] if len(entries) == 1 else {"type": "function_call_batch", "calls": entries}
    return {"responses_create_params": {"input": "?"}, "expected_action": expected, "agent_ref": {"name": agent}}


@pytest.mark.parametrize(
    ("expected", "made", "reward"),
    [
        ({"q": "big red house"}, {"q": "the BIG house"}, 1.0),  # two common words of six
        ({"q": "big red house"}, {"q": "small blue boat"}, 0.0),
        ({"q": "rome"}, {"q": "Rome"}, 0.0),  # single words exactly
        ({"q": 2.0}, {"q": 2.0000001}, 1.0),
        ({"q": 2.0}, {"q": 2}, 0.0),  # types as Python reads them from JSON
        ({"q": 2}, {"q": 2.0}, 0.0),
        ({"q": [1, {"a": None}]}, {"q": [1, {"a": None}]}, 1.0),
        ({"q": [1]}, {"q": [1, 1]}, 0.0),
        ({"q": 1}, {"q": 1, "p": 1}, 0.0),
    ],
)
def test_expected_action_compares_arguments_as_nemo_gym_does(expected, made, reward):
    assert judge(action(("find", expected)), ("find", made)).reward == reward


def test_expected_action_with_several_calls():
    a, b, c = (("f", {"x": n}) for n in (1, 2, 3))
    assert judge(action(a, b), b, a).reward == 1.0
    assert judge(action(a), c, a).reward == 1.0  # further calls cost nothing
    assert judge(action(a, b), a).reward == 0.0
    assert judge(action(a, a), a).reward == 0.0
    parallel = "parallel_tool_calls_single_step_tool_use_with_argument_comparison_agent"
    assert judge(action(a, b, agent=parallel), a).reward == pytest.approx(2 / 3)
    assert judge(action(a, b, agent=parallel), a, b, c).reward == pytest.approx(4 / 5)


def test_calls_are_assigned_so_that_as_many_as_possible_match():
    loose, tight = ("f", {"q": "a b c d"}), ("f", {"q": "a b x y"})
    # The first call made fits both expected ones, the second only the first: greedy pairing would miss one.
    assert judge(action(loose, tight), ("f", {"q": "a x"}), ("f", {"q": "c d"})).reward == 1.0


@pytest.mark.parametrize(
    ("agent", "one_word_of_two", "none"),
    [
        ("single_step_tool_use", 1.0, 0.0),
        ("toolcall_schema", 1.0, 0.0),
        ("search_pivot", 0.0, 0.0),  # a quarter of the words of both is not three tenths
        ("swe_pivot", 1.0, 1.0),
        ("droid_pivot", 1.0, 1.0),
    ],
)
def test_how_alike_texts_must_be_depends_on_the_agent(agent, one_word_of_two, none):
    row = action(("find", {"q": "red house"}), agent=f"{agent}_single_step_tool_use_with_argument_comparison_agent")
    assert judge(row, ("find", {"q": "red boat"})).reward == one_word_of_two
    assert judge(row, ("find", {"q": "blue boat"})).reward == none
    assert judge(row, ("find", {"q": "red house"})).reward == 1.0
    assert judge(row, ("find", {"q": "red"})).reward == 0.0  # single words exactly, whatever the agent


def test_expected_message():
    row = {"responses_create_params": {"input": "?"}, "expected_action": {"type": "message", "content": "Hi"}}
    assert judge(row, content="anything").reward == 1.0
    assert judge(row, ROME, content="anything").reward == 0.0
    assert judge(row).reward == 0.0


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (with_tools(), "no_ground_truth"),
        (with_tools(ground_truth="[{"), "bad_ground_truth"),
        (with_tools(ground_truth=[{"name": "book"}]), "bad_ground_truth"),
        (with_tools(ground_truth=[{"name": "book", "arguments": "[]"}]), "bad_ground_truth"),
        (truth(("book", {"city": "Rome"})), "bad_ground_truth"),
        (with_tools(schemas={"book": {"type": "oject"}}, ground_truth=[]), "bad_tools"),
        (with_tools(expected_action={"type": "dance"}), "bad_ground_truth"),
        (with_tools(expected_action={"type": "function_call_batch", "calls": []}), "bad_ground_truth"),
    ],
)
def test_bad_rows_are_refused(row, code):
    with pytest.raises(RowError) as caught:
        TOOLS.check_row(row)
    assert caught.value.code == code


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema.json", "#/$defs/none"])
def test_a_schema_s_references_must_lie_within_it(reference):
    row = with_tools(schemas={"book": {"properties": {"a": {"$ref": reference}}}}, ground_truth=[])
    with pytest.raises(RowError) as caught:
        TOOLS.check_row(row)
    assert caught.value.code == "bad_tools"


def test_gym_rows_load_and_tell_right_from_wrong():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        assert environment_of(sample) is TOOLS
        TOOLS.check_row(sample)
        output = [{"type": "function_call", **call} for call in sample["ground_truth"]]
        assert TOOLS.verify(sample, response_from_openai({"output": output})).reward == 1.0
        output[0] = output[0] | {"arguments": output[0]["arguments"].replace("0000", "1111", 1)}
        assert TOOLS.verify(sample, response_from_openai({"output": output})).reward == 0.0
        assert TOOLS.verify(sample, Response("Done.")).reward == 0.0
