import json
from pathlib import Path

import pytest

from cascade.chat import Response
from cascade.environments.registry import environment_of, get
from cascade.errors import RowError

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "mcqa.jsonl"
MCQA = get("mcqa")


def row(**changes):
    return {
        "options": [{"A": "red apple"}, {"B": "apple"}, {"C": "Paris"}, {"D": "12"}],
        "expected_answer": "B",
        "grading_mode": "strict_single_letter_boxed",
        **changes,
    }


def read(text, **changes):
    verdict = MCQA.verify(row(**changes), Response(text))
    assert verdict.reward == float(verdict.extracted == "B")
    return verdict.extracted


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("\\boxed{B}", "B"),
        ("\\boxed{A}, no: \\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{(C)}", "C"),
        ("\\boxed{B: apple}", "B"),
        ("\\boxed{B) an apple}", "B"),
        ("\\boxed{B", None),
        ("\\boxed{b}", None),
        ("\\boxed{E}", None),
        ("\\boxed{A or B}", None),
        ("\\boxed{apple}", None),
        ("B", None),
    ],
)
def test_strict_boxed(text, letter):
    assert read(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("\\boxed{B}", "B"),
        ("\\boxed{It is  PARIS}", "C"),
        ("\\boxed{\\text{12}}", "D"),
        ("\\boxed{red apple}", "A"),  # the text of B is a part of it
        ("\\boxed{pear}", None),
        ("apple", None),
    ],
)
def test_lenient_boxed_finds_the_text_of_exactly_one_option(text, letter):
    assert read(text, grading_mode="lenient_boxed") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("answer : b", "B"),
        ("Answer: \\text{C}", "C"),
        ("Answer: paris", "C"),
        ("Answer: A\nAnswer: B", "A"),  # the first one counts
        ("Answer: B because", None),
        ("\\boxed{B}", None),
    ],
)
def test_lenient_answer_colon(text, letter):
    assert read(text, grading_mode="lenient_answer_colon") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("**Answer:** B", "B"),
        ("Answer: A\n__Answer__: **C** it is", "C"),  # the last one counts
        ("Answer: B, because", "B"),
        ("Answer: option D.", "D"),
        ("Answer: A or B", None),
        ("Answer: ب", "B"),
    ],
)
def test_lenient_answer_colon_markdown(text, letter):
    assert read(text, grading_mode="lenient_answer_colon_md") == letter


def test_a_rows_own_pattern_counts_first_and_the_mode_decides_where_it_finds_nothing():
    pattern = {"output_regex": "Option Selected:\\s*([A-Za-z])\\s*"}
    assert read("Option Selected: c ... Option Selected: b \\boxed{C}", template_metadata=pattern) == "B"
    assert read("\\boxed{C}", template_metadata=pattern) == "C"
    several = {"output_regex": ["no match (.)", "choice is ([a-z ]+)"]}
    assert read("choice is paris", template_metadata=several) == "C"
    assert read("\\boxed{B}", template_metadata={"output_regex": "("}) == "B"


def test_a_pattern_that_does_not_finish_is_a_failure_not_a_zero(monkeypatch):
    monkeypatch.setattr("cascade.environments.mcqa.grading.REGEX_SECONDS", 0.1)
    verdict = MCQA.verify(row(template_metadata={"output_regex": "(x+x+)+y"}), Response("x" * 5000))
    assert verdict.reward is None
    assert verdict.failure == "timeout"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"options": None}, "no_options"),
        ({"options": [{"A": None}]}, "no_options"),
        ({"expected_answer": None}, "no_answer"),
        ({"expected_answer": "E"}, "no_answer"),
        ({"grading_mode": "by feeling"}, "bad_grading_mode"),
    ],
)
def test_bad_rows_are_refused(changes, code):
    with pytest.raises(RowError) as caught:
        MCQA.check_row(row(**changes))
    assert caught.value.code == code


def test_gym_rows_load_and_tell_right_from_wrong():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")
    for line in SAMPLES.read_text().splitlines():
        sample = json.loads(line)
        MCQA.check_row(sample)
        right = sample["expected_answer"]
        wrong = "A" if right != "A" else "B"
        assert MCQA.verify(sample, Response(f"So \\boxed{{{right}}}")).reward == 1.0
        assert MCQA.verify(sample, Response(f"So \\boxed{{{wrong}}}")).reward == 0.0


def test_the_environment_is_found_by_gym_s_names():
    assert environment_of({"agent_ref": {"name": "mcqa_simple_agent"}}) is MCQA


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_the_reasoning_repeats_what_the_answer_s_note_ends_with(level):
    for task in MCQA.generate(200, seed=3, level=level):
        letters = [letter for option in task["options"] for letter in option]
        notes, looked_up, _ = task["demonstration"]["reasoning"].rsplit(". ", 2)
        key, letter = looked_up.rsplit(" ", 1)
        assert letter == task["expected_answer"]
        said = notes.rsplit(". ", 1)[-1].split(", ")
        assert [note.split(" ", 1)[0] for note in said] == letters
        found = [note.split(" ", 1)[0] for note in said if note.endswith(f" {key}")]
        assert found[-1] == letter, task["demonstration"]["reasoning"]
        assert key == "best" or found == [letter]
