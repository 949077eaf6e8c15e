import json

import pytest

from cascade.errors import CascadeError
from cascade.training.prompts import Cursor, Prompt, PromptSource, apportion, load_prompts
from tests.training.miniature import prompt_rows, write_rows


def source(mix: dict[str, float], size: int, cursor: Cursor) -> PromptSource:
    prompts = {d: [Prompt(f"{d}{i}", d, "find_the_word", "{}") for i in range(size)] for d in mix}
    return PromptSource(prompts, mix, 0, "rl", cursor=cursor)


def test_shares_are_exact_over_time_and_within_one_prompt_at_every_step():
    mix = {"mcqa": 0.55, "tools": 0.30, "json": 0.15}
    owed: dict[str, float] = {}
    given = dict.fromkeys(mix, 0)
    for step in range(1, 101):
        counts = apportion(mix, 7, owed)
        assert sum(counts.values()) == 7
        for domain, count in counts.items():
            given[domain] += count
            assert abs(given[domain] - mix[domain] * 7 * step) < 1
    assert given == {"mcqa": 385, "tools": 210, "json": 105}


def test_a_first_step_is_the_largest_remainder():
    assert apportion({"a": 0.5, "b": 0.3, "c": 0.2}, 8, {}) == {"a": 4, "b": 2, "c": 2}


def test_a_domain_that_had_too_much_is_never_given_less_than_nothing():
    mix = {"a": 0.9, "b": 0.05, "c": 0.05}
    owed: dict[str, float] = {}
    steps = [apportion(mix, 2, owed) for _ in range(20)]
    assert all(min(step.values()) >= 0 and sum(step.values()) == 2 for step in steps)
    assert sum(step["a"] for step in steps) == 36


def test_no_prompt_comes_twice_before_all_came_once_refills_included():
    prompts = source({"a": 1.0}, size=10, cursor=Cursor())
    drawn = [*prompts.draw_step(4), *prompts.draw("a", 3), *prompts.draw_step(3)]
    assert sorted(draw.prompt.id for draw in drawn) == sorted(f"a{i}" for i in range(10))
    assert [draw.position for draw in drawn] == list(range(10))


def test_drawing_continues_from_a_saved_cursor():
    mix = {"a": 0.6, "b": 0.4}
    whole = source(mix, 5, Cursor())
    expected = [whole.draw_step(3) for _ in range(8)]
    first = source(mix, 5, Cursor())
    begun = [first.draw_step(3) for _ in range(3)]
    saved = json.loads(json.dumps(first.cursor.as_json()))
    resumed = source(mix, 5, Cursor(**saved))
    assert begun + [resumed.draw_step(3) for _ in range(5)] == expected


def test_rows_that_cannot_be_verified_are_left_out_and_counted(tmp_path, capsys):
    rows = prompt_rows("one", 3)
    rows.append({"id": "bad", "environment": "find_the_word", "row": '{"responses_create_params": {"input": "hi"}}'})
    rows.append({"id": "worse", "environment": "find_the_word", "row": "{}"})
    write_rows(tmp_path / "one.parquet", rows)
    assert [prompt.id for prompt in load_prompts(tmp_path / "one.parquet", "one")] == ["one-0", "one-1", "one-2"]
    assert "2 of 5 rows left out (no_prompt 1, no_word 1)" in capsys.readouterr().err


def test_a_file_without_usable_prompts_or_without_a_column_is_named(tmp_path):
    write_rows(tmp_path / "empty.parquet", [{"id": "x", "environment": "find_the_word", "row": "{}"}])
    with pytest.raises(CascadeError, match=r"empty.parquet: no usable prompt for domain 'one'"):
        load_prompts(tmp_path / "empty.parquet", "one")
    write_rows(tmp_path / "other.parquet", [{"id": "x", "row": "{}"}])
    with pytest.raises(CascadeError, match=r"other.parquet: no column 'environment'"):
        load_prompts(tmp_path / "other.parquet", "one")
