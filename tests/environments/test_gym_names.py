"""Rollout files as NeMo Gym writes them, one environment after another: who judges a row, and what it gets."""

import json

import pytest

from cascade.commands.score import score_file
from cascade.environments.registry import environment_of
from cascade.errors import CascadeError

AGENTS = {
    "instruction_following_simple_agent": "instruction_following",
    "lc_niah_simple_agent": "long_context",
    "math_with_code_simple_agent": "math",
    "math_with_judge_hermes_agent": "math",
    "math_with_judge_simple_agent": "math",
    "mcqa_simple_agent": "mcqa",
    "reasoning_gym_langgraph_agent": "reasoning_gym",
    "reasoning_gym_simple_agent": "reasoning_gym",
    "structured_outputs_simple_agent": "structured_output",
    "structured_outputs_v3_simple_agent": "structured_output",
    "structured_outputs_v4_simple_agent": "structured_output",
    "workplace_assistant_simple_agent": "tool_calling",
    "single_step_tool_use_with_argument_comparison_agent": "tool_calling",
    "parallel_tool_calls_single_step_tool_use_with_argument_comparison_agent": "tool_calling",
    "toolcall_schema_single_step_tool_use_with_argument_comparison_agent": "tool_calling",
    "search_pivot_single_step_tool_use_with_argument_comparison_agent": "tool_calling",
    "swe_pivot_single_step_tool_use_with_argument_comparison_agent": "tool_calling",
    "droid_pivot_single_step_tool_use_with_argument_comparison_agent": "tool_calling",
}
"""NeMo Gym's agents, as its configurations call them."""


@pytest.mark.parametrize(("agent", "name"), AGENTS.items())
def test_a_row_finds_its_environment_by_its_agent_or_environment_name(agent, name):
    assert environment_of({"agent_ref": {"type": "responses_api_agents", "name": agent}}).name == name
    assert environment_of({"environment_name": agent.removesuffix("_simple_agent")}).name == name


def said(text):
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}]}


def called(name, arguments):
    item = {"type": "function_call", "call_id": "c", "name": name, "arguments": json.dumps(arguments)}
    return {"output": [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}, item]}


SAVE = {
    "type": "function",
    "name": "save",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
REPLY = {
    "type": "function",
    "name": "email_reply_email",
    "parameters": {
        "type": "object",
        "properties": {"email_id": {"type": "string"}, "body": {"type": "string"}},
        "required": ["email_id", "body"],
    },
}
ANSWERED = {"email_id": "00000057", "body": "Thanks for the update"}

CASES = {
    "instruction_following_simple_agent": (
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        said("No comma here"),
        said("One, two"),
    ),
    "mcqa_simple_agent": (
        {"options": [{"A": "cat"}, {"B": "dog"}], "expected_answer": "B", "grading_mode": "strict_single_letter_boxed"},
        said("\\boxed{B}"),
        said("\\boxed{A}"),
    ),
    "math_with_judge_simple_agent": (
        {"question": "What is 1/2 + 1/4?", "expected_answer": "\\(\\frac{3}{4}\\)"},
        said("So \\boxed{0.75}"),
        said("So \\boxed{0.7}"),
    ),
    "reasoning_gym_simple_agent": (
        {"question": "2 + 2", "answer": "4", "metadata": {"source_dataset": "basic_arithmetic", "expression": "2 + 2"}},
        said("<answer>4</answer>"),
        said("<answer>5</answer>"),
    ),
    "structured_outputs_v4_simple_agent": (
        {"schema_str": json.dumps(SAVE["parameters"]), "response_mode": "tool_call", "tool_name": "save"},
        called("save", {"city": "Rome"}),
        called("save", {"town": "Rome"}),
    ),
    "structured_outputs_v3_simple_agent": (
        {"schema_str": json.dumps(SAVE["parameters"]), "schema_type": "json"},
        said('{"city": "Rome"}'),
        said('The city is {"city": "Rome"}'),
    ),
    "workplace_assistant_simple_agent": (
        {"tools": [REPLY], "ground_truth": [{"name": REPLY["name"], "arguments": json.dumps(ANSWERED)}]},
        called(REPLY["name"], ANSWERED),
        called(REPLY["name"], {**ANSWERED, "email_id": "00000058"}),
    ),
    "single_step_tool_use_with_argument_comparison_agent": (
        {"expected_action": {"type": "function_call", "name": "save", "arguments": '{"city": "New York City"}'}},
        called("save", {"city": "new york"}),
        called("save", {"city": "San Francisco"}),
    ),
    "lc_niah_simple_agent": (
        {"expected_answer": '["a", "b"]', "problem_type": "parents", "source": "graphwalks"},
        said("Final Answer: [b, a]"),
        said("a and b"),
    ),
}


@pytest.mark.parametrize("agent", CASES)
def test_rollouts_are_scored_by_the_environment_of_their_agent(agent, tmp_path):
    fields, right, wrong = CASES[agent]
    fields = dict(fields)
    params = {"input": [{"role": "user", "content": "Please."}], "tools": fields.pop("tools", [])}
    row = {"responses_create_params": params, "agent_ref": {"type": "responses_api_agents", "name": agent}, **fields}
    path = tmp_path / "rollouts.jsonl"
    lines = [{**row, "response": right, "reward": 1.0}, {**row, "response": wrong, "reward": 0.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = score_file(path)
    assert summary.failures == {}
    assert (summary.mean_reward, summary.disagreements) == (0.5, 0)


@pytest.mark.parametrize("agent", CASES)
def test_a_name_of_gym_s_may_be_given_for_rows_that_name_nothing_or_another(agent, tmp_path):
    fields, right, wrong = CASES[agent]
    fields = dict(fields)
    params = {"input": [{"role": "user", "content": "Please."}], "tools": fields.pop("tools", [])}
    rows = [
        {"responses_create_params": params, **fields},
        {"environment": "chess", "responses_create_params": params, **fields},
    ]
    path, out = tmp_path / "rollouts.jsonl", tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps({**row, "response": said}) + "\n" for row in rows for said in (right, wrong)))
    for name in (agent, agent.removesuffix("_agent").removesuffix("_simple")):
        summary = score_file(path, environment=name, out=out)
        assert summary.failures == {}
        assert summary.mean_reward == 0.5
    # The file that comes out still says what came in.
    assert [json.loads(line).get("environment") for line in out.read_text().splitlines()] == [
        None,
        None,
        "chess",
        "chess",
    ]


def test_which_rules_apply_is_the_given_name_s(tmp_path):
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "Walk."}]},
        "expected_answer": '["a", "b"]',
        "response": said("Final Answer: [b, a]"),
    }
    path = tmp_path / "rollouts.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert score_file(path, environment="lc_niah").mean_reward == 1
    assert score_file(path, environment="long_context").mean_reward == 0


def test_an_unknown_name_is_answered_with_both_kinds_of_names(tmp_path):
    with pytest.raises(
        CascadeError, match=r"unknown environment 'chess'; known: code, .*NeMo Gym's .*lc_niah, .*workplace"
    ):
        score_file(tmp_path / "none.jsonl", environment="chess")
