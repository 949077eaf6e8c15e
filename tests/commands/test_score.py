import json

import pytest

from cascade.commands.score import score_file
from cascade.environments.registry import get
from cascade.errors import CascadeError

MCQA = {"environment": "mcqa", "options": [{"A": "cat"}, {"B": "dog"}], "expected_answer": "B"}


def message(text):
    return {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]}


def write(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_text_and_responses_objects_are_scored_and_written_line_by_line(tmp_path):
    source = write(
        tmp_path / "rollouts.jsonl",
        [
            {**MCQA, "response": "<think>dogs</think>\\boxed{B}", "id": 1},
            {**MCQA, "response": message("\\boxed{A}"), "reward": 1.0},
            {**MCQA, "response": message("\\boxed{B}"), "reward": 1},
        ],
    )
    summary = score_file(source, out=tmp_path / "out" / "scored.jsonl")
    first, second, third = read(tmp_path / "out" / "scored.jsonl")
    assert (first["reward"], first["failure"], first["extracted"], first["id"]) == (1.0, None, "B", 1)
    assert "reward_given" not in first
    assert (second["reward"], second["reward_given"], second["reason"]) == (0.0, 1.0, "answered A, expected B")
    assert third["reward"] == 1.0
    assert (summary.count, summary.scored, summary.mean_reward) == (3, 3, pytest.approx(2 / 3))
    assert (summary.compared, summary.disagreements) == (2, 1)
    assert "mean reward 0.6667" in str(summary)


def test_bad_lines_are_failures_with_a_reason_and_the_rest_is_scored(tmp_path):
    source = write(
        tmp_path / "rollouts.jsonl",
        [
            "{",
            "[1]",
            "",
            "[" * 100_000,
            {"response": "x"},
            {**MCQA, "environment": "chess", "response": "x"},
            MCQA,
            {**MCQA, "response": 7},
            {**MCQA, "expected_answer": "Z", "response": "x"},
            {**MCQA, "response": {"output": [7]}},
            {**MCQA, "response": {"output": [{"type": "function_call"}]}},
            {**MCQA, "response": "\\boxed{B}"},
        ],
    )
    summary = score_file(source, out=tmp_path / "scored.jsonl")
    lines = read(tmp_path / "scored.jsonl")
    assert [line["failure"] for line in lines] == [
        "bad_json", "bad_json", "bad_json", "no_environment", "no_environment",
        "no_response", "bad_response", "no_answer", "bad_response", "bad_response", None,
    ]  # fmt: skip
    assert all(line["reward"] is None and line["reason"] for line in lines[:-1])
    assert lines[0]["line"] == 1
    assert summary.failures["bad_json"] == 3
    assert (summary.count, summary.scored, summary.mean_reward) == (11, 1, 1.0)
    assert "bad_json: 3" in str(summary)


def test_an_error_in_a_verifier_is_a_failure_of_its_own(tmp_path, monkeypatch):
    def broken(self, row, response):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(type(get("mcqa")), "verify", broken)
    summary = score_file(write(tmp_path / "a.jsonl", [{**MCQA, "response": "x"}]), out=tmp_path / "b.jsonl")
    assert summary.failures == {"verifier_error": 1}
    assert read(tmp_path / "b.jsonl")[0]["reason"] == "line 1: ZeroDivisionError: oops"


def test_bytes_that_are_no_text_are_a_failure(tmp_path):
    source = tmp_path / "rollouts.jsonl"
    source.write_bytes(b"\xff\xfe{}\n" + json.dumps({**MCQA, "response": "\ud800 \\boxed{B}"}).encode() + b"\n")
    summary = score_file(source, out=tmp_path / "scored.jsonl")
    assert [line["failure"] for line in read(tmp_path / "scored.jsonl")] == ["bad_json", None]
    assert summary.mean_reward == 1.0


def test_the_option_overrides_what_the_row_names(tmp_path):
    row = {**MCQA, "environment": "chess", "response": "\\boxed{B}"}
    assert score_file(write(tmp_path / "a.jsonl", [row]), environment="mcqa").mean_reward == 1.0


@pytest.mark.parametrize("name", ["reasoning_gym", "math", "mcqa", "structured_output"])
def test_every_text_environment_scores_its_own_demonstrations(name, tmp_path):
    rows = [
        {**row, "response": f"<think>{row['demonstration']['reasoning']}</think>{row['demonstration']['content']}"}
        for row in get(name).generate(20, seed=0, level=2)
    ]
    summary = score_file(write(tmp_path / "a.jsonl", rows))
    assert (summary.mean_reward, summary.scored) == (1.0, 20)


def test_tool_calls_are_scored_from_function_call_items(tmp_path):
    rows = []
    for row in get("tool_calling").generate(20, seed=0, level=3):
        calls = [call["function"] for call in row["demonstration"]["tool_calls"]]
        output = [{"type": "function_call", "name": c["name"], "arguments": json.dumps(c["arguments"])} for c in calls]
        rows.append({**row, "response": {"output": output}})
    assert score_file(write(tmp_path / "a.jsonl", rows)).mean_reward == 1.0


def test_a_missing_file_or_environment_is_one_clear_error(tmp_path):
    with pytest.raises(CascadeError, match="cannot be read"):
        score_file(tmp_path / "none.jsonl")
    with pytest.raises(CascadeError, match="unknown environment 'chess'"):
        score_file(write(tmp_path / "a.jsonl", []), environment="chess")


def test_an_empty_file_has_no_mean(tmp_path):
    summary = score_file(write(tmp_path / "a.jsonl", ["", ""]))
    assert (summary.count, summary.mean_reward) == (0, None)


def test_scoring_a_file_onto_itself_and_a_stop_half_way_leave_no_broken_file(tmp_path, monkeypatch):
    source = write(tmp_path / "a.jsonl", [{**MCQA, "response": "\\boxed{B}"}] * 3)
    score_file(source, out=source)
    assert [line["reward"] for line in read(source)] == [1.0] * 3
    before = source.read_text()
    monkeypatch.setattr("cascade.commands.score.PROGRESS_EVERY", 2)

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(source, out=source, progress=stop)
    assert source.read_text() == before
    assert list(tmp_path.iterdir()) == [source]


def test_progress_is_reported_every_so_many_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.commands.score.PROGRESS_EVERY", 2)
    seen = []
    score_file(write(tmp_path / "a.jsonl", [{**MCQA, "response": "\\boxed{B}"}] * 5), progress=seen.append)
    assert seen == [2, 4]
