import pytest

from cascade.curation.rows import Candidate, parse
from cascade.errors import RowError

from .conftest import chat_row, math_row


def read(raw: dict, use: str = "sft", environment: str | None = None) -> Candidate:
    return parse(raw, use, "made", "math", environment)  # type: ignore[arg-type]


def code(raw: dict, use: str = "sft") -> str:
    with pytest.raises(RowError) as error:
        read(raw, use)
    return error.value.code


def test_chat_row_with_inline_reasoning():
    row = read(chat_row("Why?", "<think>\nHm.\n</think>\nBecause."))
    assert row.messages[-1] == {"role": "assistant", "content": "Because.", "reasoning_content": "Hm."}


def test_chat_row_with_tools_and_calls_as_json_text():
    call = {"id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    row = read({"messages": messages, "tools": '[{"type": "function", "function": {"name": "add"}}]'})
    assert row.messages[-1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert row.tools == [{"type": "function", "function": {"name": "add"}}]


def test_gym_row_as_prompt_keeps_what_verifies_and_drops_the_demonstration():
    row = read({**math_row("2 + 2?", "4"), "demonstration": {"reasoning": "r", "content": "4"}}, "rl")
    assert row.gym == math_row("2 + 2?", "4")
    assert [m["role"] for m in row.messages] == ["user"]


def test_gym_row_for_sft_ends_with_its_demonstration():
    row = read({**math_row("2 + 2?", "4"), "demonstration": {"reasoning": "Count.", "content": "\\boxed{4}"}})
    assert row.messages[-1] == {"role": "assistant", "content": "\\boxed{4}", "reasoning_content": "Count."}
    assert row.answer is not None
    assert (row.answer.content, row.answer.reasoning) == ("\\boxed{4}", "Count.")


def test_question_and_answer_as_gsm8k_has_them():
    raw = {"question": "How many?", "answer": "24/2 = <<24/2=12>>12 each.\nIn all 1,200.\n#### 1,200"}
    row = read(raw, environment="math")
    assert row.gym is not None
    assert row.gym["expected_answer"] == "1200"
    assert row.gym["environment"] == "math"
    assert row.messages[-1]["reasoning_content"] == "24/2 = 12 each.\nIn all 1,200."
    assert row.messages[-1]["content"] == "\\boxed{1200}"


def test_the_recipes_environment_is_only_for_rows_that_name_none():
    named = read(math_row("2?", "2"), "rl", "mcqa").gym
    agent = {**math_row("2?", "2"), "agent_ref": {"name": "math_simple_agent"}}
    del agent["environment"]
    assert named is not None
    assert named["environment"] == "math"
    assert "environment" not in (read(agent, "rl", "mcqa").gym or {})


def test_id_is_that_of_the_prompt_whatever_its_use_and_spacing():
    demonstrated = {**math_row("What is 2 + 2?", "4"), "demonstration": {"reasoning": "", "content": "4"}}
    prompt = read(math_row("what is  2 + 2?", "4"), "rl")
    assert read(demonstrated).id == prompt.id
    assert len(prompt.id) == 32
    assert read(math_row("What is 2 + 3?", "5"), "rl").id != prompt.id


def test_id_knows_the_tools():
    bare, with_tools = math_row("2?", "2"), math_row("2?", "2")
    with_tools["responses_create_params"]["tools"] = [{"type": "function", "name": "f", "parameters": {}}]
    assert read(bare, "rl").id != read(with_tools, "rl").id


def test_system_messages_do_not_count_in_comparisons():
    messages = [{"role": "system", "content": "Be good."}, *chat_row("Hi", "Hello")["messages"]]
    row = read({"messages": messages})
    assert row.text == "hi hello"
    assert row.questions == ("hi",)


def test_refused_forms():
    assert code({}) == "unknown_form"
    assert code({"text": "only text"}) == "unknown_form"
    assert code({"question": "?", "answer": 3}) == "unknown_form"
    assert code({"question": "?", "answer": "no marker"}) == "no_final_answer"
    assert code({"question": "?", "answer": "empty ####  "}) == "no_final_answer"
    assert code(math_row("2?", "2")) == "no_demonstration"
    assert code(chat_row("Hi", "Hello"), "rl") == "no_verifier"
    assert code({"responses_create_params": {"input": []}}, "rl") == "no_prompt"


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": None},
        {"messages": [1, 2]},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": {"arguments": "{"}}]}]},
        {"messages": [{"role": "user", "content": "x"}], "tools": "not json"},
        {"responses_create_params": {"input": [3]}, "demonstration": {"content": ""}},
        {"responses_create_params": {"input": "x", "tools": [5]}, "demonstration": {"content": ""}},
        {**math_row("x", "y"), "level": "hard", "demonstration": {}},
        {**math_row("x", "y"), "demonstration": {"content": "", "tool_calls": [{"function": {}}]}},
    ],
)
def test_fields_of_the_wrong_type(raw: dict):
    assert code(raw) == "bad_row"
