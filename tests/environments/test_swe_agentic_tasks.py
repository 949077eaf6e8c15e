"""Nano tasks of agentic code repair: every demonstration, replayed, mends its repository; transcripts are scored."""

import json

import pytest

from cascade.chat import Response, ToolCall, prompt_of, render_tool_call
from cascade.commands.score import score_file
from cascade.environments.registry import get
from cascade.environments.swe_agentless.checks import read_checks, run_checks
from cascade.errors import CascadeError

ENVIRONMENT = get("swe_agentic")
LEVELS = (1, 2, 3, 4, 5)


def as_responses_object(messages: list[dict]) -> dict:
    output = []
    for message in messages:
        if message["role"] == "tool":
            output.append({"type": "function_call_output", "call_id": "c", "output": message["content"]})
        else:
            function = message["tool_calls"][0]["function"]
            output.append({"type": "function_call", **function, "arguments": json.dumps(function["arguments"])})
    return {"output": output}


def test_a_transcript_is_scored_by_what_its_calls_made_of_the_repository(tmp_path):
    made = next(ENVIRONMENT.generate(1, 11, 2))
    shown = made.pop("demonstration")["messages"]
    texts = [
        f"<think>{m['reasoning_content']}</think>{render_tool_call(ToolCall(**m['tool_calls'][0]['function']))}"
        if m["role"] == "assistant"
        else f"<tool_response>\n{m['content']}\n</tool_response>"
        for m in shown
    ]
    foreign = {**made["responses_create_params"], "tools": [{"type": "function", "name": "execute_bash"}]}
    lines = [
        {**made, "response": as_responses_object(shown)},
        {**made, "response": "\n".join(texts)},
        {**made, "response": as_responses_object(shown[:1])},
        {**made, "response": "I have fixed it."},
        {**made, "responses_create_params": foreign, "response": as_responses_object(shown)},
    ]
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    score_file(path, out=tmp_path / "scored.jsonl")
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [line["reward"] for line in scored] == [1, 1, 0, None, None]
    assert [line["failure"] for line in scored[3:]] == ["no_episode", "foreign_tools"]


@pytest.mark.parametrize("level", LEVELS)
def test_demonstrations_replayed_as_episodes_get_the_same_results_and_the_reward(level):
    lengths = []
    for made in ENVIRONMENT.generate(6, 9, level):
        made = json.loads(json.dumps(made))
        ENVIRONMENT.check_row(made)
        assert prompt_of(made)[0][-1]["role"] == "user"
        shown = made["demonstration"]["messages"]
        assert [m["role"] for m in shown] == ["assistant", "tool"] * (len(shown) // 2) + ["assistant"]
        episode = ENVIRONMENT.start(made)
        for turn, result in zip(shown[::2], [*shown[1::2], None], strict=True):
            assert turn["reasoning_content"]
            function = turn["tool_calls"][0]["function"]
            answer = episode.answer(Response("", tool_calls=(ToolCall(**function),)))
            assert answer == (None if result is None else [result])
        verdict = episode.verdict()
        assert (verdict.reward, verdict.extracted) == (1, made["patch"])
        lengths.append(len(shown) // 2 + 1)
        # And the unmended repository fails its tests.
        failing = run_checks(made["files"], read_checks(made["tests"], made["FAIL_TO_PASS"]))
        assert not any(outcome.passed for outcome in failing)
        assert 0 < len(made["shown_tests"]) < len(made["FAIL_TO_PASS"] + made["PASS_TO_PASS"])
    assert 3 <= min(lengths) <= max(lengths) <= 9


@pytest.mark.parametrize("level", LEVELS)
def test_rows_depend_on_seed_level_and_number_alone(level):
    few, many = list(ENVIRONMENT.generate(5, 7, level)), list(ENVIRONMENT.generate(9, 7, level))
    assert many[:5] == few
    assert list(ENVIRONMENT.generate(5, 8, level)) != few
    assert len({made["id"] for made in many}) == 9
    assert all((made["environment"], made["domain"]) == ("swe_agentic", "swe_agentic") for made in many)


def test_some_demonstrations_first_try_a_wrong_fix():
    names = [
        [turn["tool_calls"][0]["function"]["name"] for turn in made["demonstration"]["messages"][::2]]
        for made in ENVIRONMENT.generate(25, 2, 3)
    ]
    assert any(of_episode.count("edit") > 1 for of_episode in names)


def test_an_unknown_level_is_refused_at_once():
    with pytest.raises(CascadeError, match="swe_agentic: level 6 does not exist"):
        ENVIRONMENT.generate(1, 0, 6)
