"""What every nano task generator promises, for the environments that have no other page for it."""

import json
import time
from random import Random

import pytest

from cascade.chat import Response, ToolCall, parse_response, prompt_of
from cascade.environments.registry import get
from cascade.environments.synthetic.rows import shortened
from cascade.errors import CascadeError

LEVELS = {
    "reasoning_gym": (1, 2, 3, 4),
    "math": (1, 2, 3),
    "mcqa": (1, 2, 3, 4),
    "tool_calling": (1, 2, 3, 4),
    "structured_output": (1, 2, 3, 4),
    "human_preference": (1, 2, 3, 4, 5),
}
DOMAINS = {"reasoning_gym": "math"}
CASES = [(name, level) for name, levels in LEVELS.items() for level in levels]

HOSTILE = [
    "",
    " \n",
    "\x00\ud800\uffff",
    "\\boxed{",
    "\\boxed{" * 500,
    "\\boxed{" + "{" * 3000 + "}" * 3000 + "}",
    "[" * 2_000,
    '{"a":' * 20_000,
    "9" * 50_000,
    "\\boxed{" + "9" * 50_000 + "}",
    "<answer>" * 1000,
    "Answer: " * 5000,
    "<tool_call>\n" * 100,
    "NaN",
    "&a [*a]",
    "a,b\n" + "1," * 5000,
    "\\boxed{__import__('os').system('exit 1')}",
]


def demonstrated(row) -> Response:
    shown = row["demonstration"]
    calls = [call["function"] for call in shown.get("tool_calls", [])]
    return Response(
        shown["content"], shown["reasoning"], tuple(ToolCall(call["name"], call["arguments"]) for call in calls)
    )


@pytest.mark.parametrize(("name", "level"), CASES)
def test_demonstrations_are_right_and_rows_are_valid(name, level):
    environment = get(name)
    for row in environment.generate(200, seed=7, level=level):
        environment.check_row(row)
        verdict = environment.verify(row, demonstrated(row))
        assert verdict.reward == 1.0, (row["responses_create_params"], row["demonstration"], verdict)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_the_answer_to_another_question_is_mostly_wrong(name, level):
    environment = get(name)
    rows = list(environment.generate(60, seed=8, level=level))
    rewards = [
        environment.verify(row, demonstrated(other)).reward
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    assert sum(rewards) / len(rewards) < (0.5 if name == "mcqa" else 0.2)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_the_same_seed_gives_the_same_rows_and_more_of_them_only_append(name, level):
    environment = get(name)
    few = list(environment.generate(20, seed=3, level=level))
    assert list(environment.generate(50, seed=3, level=level))[:20] == few
    other = list(environment.generate(20, seed=4, level=level))
    assert {row["id"] for row in few}.isdisjoint(row["id"] for row in other)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_rows_carry_what_curation_needs_and_survive_json(name, level):
    for row in get(name).generate(30, seed=5, level=level):
        assert row["environment"] == name
        assert row["domain"] == DOMAINS.get(name, name)
        assert row["level"] == level
        assert row["id"].startswith(f"{name}-")
        assert row["demonstration"]["reasoning"].strip()
        messages, _ = prompt_of(row)
        assert messages[-1]["role"] == "user"
        again = json.loads(json.dumps(row))
        assert get(name).verify(again, demonstrated(again)).reward == 1.0


@pytest.mark.parametrize(("name", "level"), CASES)
def test_texts_are_short_enough_for_a_small_model(name, level):
    rows = list(get(name).generate(150, seed=6, level=level))
    prompts = [len(row["responses_create_params"]["input"][0]["content"].split()) for row in rows]
    traces = [len(row["demonstration"]["reasoning"].split()) for row in rows]
    assert max(prompts) <= 60
    assert sum(traces) / len(traces) <= 35


@pytest.mark.parametrize("name", LEVELS)
def test_no_two_prompts_of_a_few_hundred_are_the_same_too_often(name):
    rows = list(get(name).generate(300, seed=1, level=2))
    assert len({row["id"] for row in rows}) > 290


def test_a_shortened_trace_is_its_opening():
    trace = "3 + 4 = 7, 7 + 5 = 12. Then 12 - 2 = 10; so 10."
    found = {shortened(trace, Random(seed)) for seed in range(200)}
    assert found == {"ok.", "3 + 4 = 7,", "3 + 4 = 7, 7 + 5 = 12."}
    assert shortened(trace, Random(1)) == shortened(trace, Random(1))
    assert {shortened("", Random(seed)) for seed in range(20)} == {"ok."}


@pytest.mark.parametrize("name", LEVELS)
def test_an_unknown_level_is_refused_at_once(name):
    with pytest.raises(CascadeError, match=f"{name} has levels 1 to"):
        get(name).generate(1, seed=0, level=9)


@pytest.mark.parametrize("name", LEVELS)
def test_thinking_that_never_ends_is_no_answer(name):
    row = next(get(name).generate(1, seed=0, level=1))
    response = parse_response(f"<think>{row['demonstration']['content']}", thinking=True)
    verdict = get(name).verify(row, response)
    assert verdict.reward == 0.0
    assert verdict.reason


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_judged_without_an_exception(name, text):
    environment = get(name)
    for level in LEVELS[name]:
        for row in environment.generate(2, seed=level, level=level):
            verdict = environment.verify(row, Response(text))
            assert verdict.reward is None or verdict.reward < 1.0


@pytest.mark.parametrize(("name", "level"), CASES)
def test_ten_thousand_rows_take_less_than_ten_seconds(name, level):
    next(get(name).generate(1, seed=0, level=level))
    start = time.process_time()
    assert sum(1 for _ in get(name).generate(500, seed=0, level=level)) == 500
    assert time.process_time() - start < 0.5
