import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from cascade.chat import Response, prompt_of
from cascade.environments import environment_of, get
from cascade.environments.instruction_following import ENVIRONMENT
from cascade.environments.instruction_following.grammar import KINDS, WORDS, patterns
from cascade.errors import CascadeError, RowError
from cascade.utils.files import read_jsonl

SAMPLES = Path(__file__).parents[3] / "shared/samples/gym/instruction_following.jsonl"


def row_of(*constraints, **fields):
    names, kwargs = zip(*constraints, strict=True)
    prompt = {"input": [{"role": "user", "content": "Say something."}]}
    return {
        "responses_create_params": prompt,
        "instruction_id_list": list(names),
        "kwargs": list(kwargs),
        "prompt": "Say something.",
        **fields,
    }


NO_COMMA = ("punctuation:no_comma", None)
TITLE = ("detectable_format:title", {})
SHORT = ("length_constraints:number_words", {"num_words": 5, "relation": "less than"})
LONG = ("length_constraints:number_words", {"num_words": 3, "relation": "at least"})


def test_reward_is_one_only_when_every_constraint_holds():
    row = row_of(NO_COMMA, TITLE)
    kept = ENVIRONMENT.verify(row, Response("<<Hi>> there"))
    assert (kept.reward, kept.extracted) == (1.0, {"punctuation:no_comma": True, "detectable_format:title": True})
    broken = ENVIRONMENT.verify(row, Response("Hi there"))
    assert (broken.reward, broken.extracted["detectable_format:title"]) == (0.0, False)
    assert broken.reason == "not kept: detectable_format:title"


def test_fraction_mode_pays_for_each_constraint():
    row = row_of(NO_COMMA, TITLE, SHORT, LONG, grading_mode="fraction")
    assert ENVIRONMENT.verify(row, Response("one, two")).reward == 0.25
    assert ENVIRONMENT.verify(row, Response("<<one>> two three")).reward == 1.0


def test_two_constraints_of_one_type_are_both_judged():
    verdict = ENVIRONMENT.verify(row_of(SHORT, LONG), Response("one two"))
    assert (verdict.reward, verdict.extracted) == (0.0, {"length_constraints:number_words": False})


def test_only_the_answer_after_the_thinking_is_judged():
    row = row_of(NO_COMMA)
    assert ENVIRONMENT.verify(row, Response("one two", reasoning="one, two")).reward == 1.0
    assert ENVIRONMENT.verify(row, Response("one, two", reasoning="one two")).reward == 0.0


@pytest.mark.parametrize("mode", ["binary", "fraction"])
@pytest.mark.parametrize(
    "response", [Response(""), Response(" \n"), Response("", reasoning="thinking"), Response("one two", finished=False)]
)
def test_without_a_finished_answer_the_reward_is_zero(response, mode):
    verdict = ENVIRONMENT.verify(row_of(NO_COMMA, SHORT, grading_mode=mode), response)
    assert (verdict.reward, verdict.failure) == (0.0, None)
    assert "unfinished" in verdict.reason or "no answer" in verdict.reason


def test_nested_metadata_takes_precedence():
    nested = {"instruction_id_list": ["detectable_format:title"], "kwargs": [None], "grading_mode": "binary"}
    row = row_of(NO_COMMA, verifier_metadata=nested)
    assert ENVIRONMENT.verify(row, Response("<<a>>, b")).reward == 1.0


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction_id_list": None},
        {"instruction_id_list": [], "kwargs": []},
        {"instruction_id_list": ["punctuation:no_commas"]},
        {"instruction_id_list": [["punctuation:no_comma"]]},
        {"kwargs": []},
        {"kwargs": None},
        {"kwargs": [{"num_words": 3}]},
        {"grading_mode": "half"},
        {"verifier_metadata": {"kwargs": [1]}},
    ],
    ids=json.dumps,
)
def test_bad_rows_are_refused_and_never_scored(fields):
    row = {**row_of(NO_COMMA), **fields}
    with pytest.raises(RowError) as error:
        ENVIRONMENT.check_row(row)
    assert error.value.code == "bad_row"
    verdict = ENVIRONMENT.verify(row, Response("one two"))
    assert (verdict.reward, verdict.failure) == (None, "bad_row")
    assert verdict.reason


def test_a_row_without_prompt_is_refused():
    with pytest.raises(RowError, match="responses_create_params"):
        ENVIRONMENT.check_row({**row_of(NO_COMMA), "responses_create_params": {}})


def test_gym_names_lead_here():
    assert environment_of({"agent_ref": {"name": "instruction_following_simple_agent"}}) is ENVIRONMENT
    assert get("instruction_following") is ENVIRONMENT


BULLETS = "\n".join(f"* POINT {i}" for i in range(5))
ANSWERS = {
    17616: ("One.\n\nTwo.\n\nCrash, three.\n\nFour is the contest.", "One.\n\nTwo.\n\nThree.\n\nFour is the contest."),
    44654: (f"FIRST\n***\n{BULLETS}\nonly three here", f"FIRST\n***\n{BULLETS}\nnow there are four"),
    2228: ("Relationship is one. Relationship is two.", "Relationship is one. The second is inevitable."),
    44655: ("[a] [b] [c] [d]. " + "It is so. " * 16, "[a] [b] [c]. " + "It is so. " * 17),
    8654: ("<<Install>>\nGet it.\n***\nRun it.", "<<Install>>\nGet it.\n***\n" + "Run it now. " * 68),
}


def test_gym_sample_rows_load_and_are_judged():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is absent")
    rows = {row["id"]: row for row in read_jsonl(SAMPLES)}
    assert rows.keys() == ANSWERS.keys()
    for number, (accepted, rejected) in ANSWERS.items():
        ENVIRONMENT.check_row(rows[number])
        assert ENVIRONMENT.verify(rows[number], Response(accepted)).reward == 1.0
        assert ENVIRONMENT.verify(rows[number], Response(rejected)).reward == 0.0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_demonstrations_keep_their_constraints_and_stay_short(level):
    for row in ENVIRONMENT.generate(300, seed=5, level=level):
        ENVIRONMENT.check_row(row)
        demonstration = row["demonstration"]
        verdict = ENVIRONMENT.verify(row, Response(demonstration["content"], demonstration["reasoning"]))
        assert verdict.reward == 1.0, (row["prompt"], demonstration["content"], verdict.reason)
        assert len(row["instruction_id_list"]) == row["level"] == level
        assert prompt_of(row)[0] == [{"role": "user", "content": row["prompt"]}]
        assert len(row["prompt"].split()) <= 45
        assert len(demonstration["content"].split()) <= 35
        assert 3 <= len(demonstration["reasoning"].split()) <= 35


def test_generation_is_deterministic_and_a_larger_count_only_appends():
    few, many = (list(ENVIRONMENT.generate(count, seed=1, level=2)) for count in (20, 60))
    assert many[:20] == few
    assert list(islice(ENVIRONMENT.generate(10**9, seed=1, level=2), 20)) == few
    assert few != list(ENVIRONMENT.generate(20, seed=2, level=2))
    assert few != list(ENVIRONMENT.generate(20, seed=1, level=3))


def test_rows_are_plain_json_with_ids_of_their_content():
    rows = list(ENVIRONMENT.generate(500, seed=1, level=2))
    assert json.loads(json.dumps(rows)) == rows
    assert len({row["id"] for row in rows}) == 500
    assert all(row["environment"] == row["domain"] == "instruction_following" for row in rows)


def test_prompts_are_varied():
    rows = list(ENVIRONMENT.generate(1000, seed=3, level=1))
    assert len({row["prompt"] for row in rows}) > 980
    kinds = Counter(row["instruction_id_list"][0] for row in rows)
    assert len(kinds) == 17
    assert min(kinds.values()) > 25
    assert len({row["prompt"].split()[0] for row in rows}) > 40


def test_answers_differ_in_what_they_do_without_the_constraint():
    """A constraint that any answer keeps would teach nothing: the demonstrations of others break it."""
    rows = list(ENVIRONMENT.generate(400, seed=4, level=1))
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        row["broken"] = ENVIRONMENT.verify(row, Response(other["demonstration"]["content"])).reward == 0
    broken = Counter(row["instruction_id_list"][0] for row in rows if row["broken"])
    assert broken.keys() == {row["instruction_id_list"][0] for row in rows}
    assert broken.total() > 280


def test_every_word_can_be_said_of_every_topic():
    for kind in KINDS:
        for slot in WORDS:
            assert patterns(kind, slot, False), (kind, slot)
            assert patterns(kind, slot, True), (kind, slot)


def test_word_classes_do_not_overlap():
    words = [word for known in WORDS.values() for word in known]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("level", [0, 4])
def test_unknown_levels_are_refused(level):
    with pytest.raises(CascadeError, match="instruction_following has levels 1 to 3"):
        ENVIRONMENT.generate(1, seed=0, level=level)
