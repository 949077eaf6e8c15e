"""Human preference: the learning signal, single responses against the reference, groups against each other."""

import json
import re
from itertools import permutations
from pathlib import Path

import pytest

from cascade import judges
from cascade.chat import Response, prompt_of
from cascade.commands.score import score_file
from cascade.environments.human_preference import tasks
from cascade.environments.human_preference.judge import read_reply, sentences, understand
from cascade.environments.registry import environment_of, get
from cascade.errors import RowError
from cascade.judges import Comparison, JudgeError, ranking
from cascade.judges.settings import Judges
from tests.judges.server import serving, verdict

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "genrm_compare.jsonl"
ENVIRONMENT = get("human_preference")
LEVELS = (1, 2, 3, 4, 5)

COOK = [{"role": "user", "content": "Hi. What can I cook with rice? I am very tired. Thank you!"}]
MORE = [
    {"role": "user", "content": "What can I cook with rice?"},
    {"role": "assistant", "content": "Rice is a good start. Serve the rice warm. Cook it slowly for ten minutes."},
    {"role": "user", "content": "What else?"},
]
OIL = "Heat the rice with a little oil."


def row(messages=COOK, **fields):
    return {"responses_create_params": {"input": messages}, "judge": "nano", **fields}


class Scripted:
    """Compares by a quality that stands in the reply: `7 or 8`; keeps what it was asked."""

    def __init__(self, *unable: str):
        self.unable = unable
        self.asked = []

    def compare(self, messages, pairs):
        self.asked += pairs
        return [self._one(*pair) for pair in pairs]

    def _one(self, first: str, second: str):
        for word in self.unable:
            if word in (first, second):
                return JudgeError("judge_malformed", f"{word} is beyond the judge")
        one, two = float(first.split()[0]), float(second.split()[0])
        return Comparison(one, two, 3.5 - (one - two) / 2)


@pytest.fixture
def judge(monkeypatch):
    def install(*unable: str) -> Scripted:
        scripted = Scripted(*unable)
        monkeypatch.setattr(judges, "preference", lambda: scripted)
        return scripted

    return install


# What the learning signal is made of


def rude(good: str) -> str:
    return f"{good} Go away, you idiot."


def padded(good: str) -> str:
    return f"Well, that is a very, very good question. {good} {good} It is what it is, as people say."


@pytest.mark.parametrize("level", LEVELS)
def test_in_a_group_the_demonstration_beats_every_worse_reply(level):
    rows = list(ENVIRONMENT.generate(40, seed=2, level=level))
    for one, other in zip(rows, rows[1:] + rows[:1], strict=True):
        good, thought = one["demonstration"]["content"], one["demonstration"]["reasoning"]
        others = [padded(good), rude(good), other["demonstration"]["content"], one["reference"], "I think so.", ""]
        verdicts = ENVIRONMENT.verify_group(one, [Response(text, thought) for text in (good, *others)])
        rewards = [verdict.reward for verdict in verdicts]
        assert all(0 <= reward <= 1 for reward in rewards)
        # Another request can by chance be the same in all that matters.
        worse = [r for r, text in zip(rewards[1:], others, strict=True) if not text or worth_of(one, text) < 5]
        assert len(worse) >= 5
        assert max(worse) < rewards[0]
        assert rewards[-1] == 0


def worth_of(one, text: str) -> float:
    """By the nano judge."""
    request = understand(prompt_of(one)[0])
    assert request is not None
    return read_reply(request, text).score


@pytest.mark.parametrize("level", LEVELS)
def test_the_base_model_reads_replies_that_the_judge_tells_apart(level):
    found = {}
    for one in tasks.mixed_quality(200, 3, level):
        found.setdefault(one["quality"], []).append(worth_of(one, one["demonstration"]["content"]))
    assert min(found["good"]) >= 4.5  # Some do not close.
    assert max(found["offtopic"] + found["curt"] + found["padded"]) < 3
    assert max(found["offtopic"]) < min(found["curt"]) < min(found["padded"])


@pytest.mark.parametrize("level", LEVELS)
def test_replies_of_mixed_quality_are_the_same_for_the_same_seed_and_whole(level):
    few, many = list(tasks.mixed_quality(20, 7, level)), list(tasks.mixed_quality(200, 7, level))
    assert many[:20] == few
    assert not re.search(r"\{\w*\}", json.dumps([one["demonstration"] for one in many]))
    of = {q: [one["demonstration"]["content"] for one in many if one["quality"] == q] for q in tasks.QUALITIES}
    assert 0.4 < len(of["good"]) / 200 < 0.75
    mean = {quality: sum(map(len, texts)) / len(texts) for quality, texts in of.items()}
    assert mean["curt"] < mean["good"] < mean["padded"]


# A group


def test_the_rewards_of_a_group_by_hand(judge):
    scripted = judge()
    responses = [Response("4", "1234567890"), Response("2 and so on", "12345"), Response("1", "123456789012345")]
    verdicts = ENVIRONMENT.verify_group(row(), responses)
    # Qualities 4, 2, 1. Reasoning 10, 5, 15 characters: weights 0, ½, -½. Answers 1, 11, 1: ⅓, -⅔, ⅓, each by λ = ½.
    # The top fifth is the first alone: its answer is the shortest (+½), its reasoning is not.
    scores = [4 + 0 + 1 / 6 + 0.5, 2 + 0.25 - 1 / 3, 1 - 0.25 + 1 / 6]
    assert [v.reward for v in verdicts] == pytest.approx([ranking.reward(score) for score in scores])
    assert [v.quality for v in verdicts] == [4, 2, 1]
    assert verdicts[0].reason == "quality 4.00, length +0.17, conciseness +0.50"
    assert len(scripted.asked) == 6, "all pairs, both orders"
    assert set(scripted.asked) == set(permutations(["4", "2 and so on", "1"], 2))


@pytest.mark.parametrize("curt", range(1, 8))
def test_length_control_does_not_take_the_closings_of_equally_good_replies(curt):
    """A small policy that learns to leave them out unlearns more than them."""
    one = next(ENVIRONMENT.generate(1, 0, 3))
    whole = one["demonstration"]["content"]
    without = " ".join(sentences(whole)[:-1])
    assert (worth_of(one, whole), worth_of(one, without)) == (5.0, 4.5)
    replies = [Response(without, "so")] * curt + [Response(whole, "so")] * (8 - curt)
    rewards = [verdict.reward for verdict in ENVIRONMENT.verify_group(one, replies)]
    assert max(rewards[:curt]) < min(rewards[curt:])


def test_a_judge_that_prefers_what_comes_first_prefers_nobody(monkeypatch):
    class First:
        def compare(self, messages, pairs):
            return [Comparison(5, 1, 1) for _ in pairs]

    monkeypatch.setattr(judges, "preference", First)
    verdicts = ENVIRONMENT.verify_group(row(), [Response("aa"), Response("bb"), Response("cc")])
    assert len({v.reward for v in verdicts}) == 1


def test_identical_responses_have_no_variance_and_are_not_compared(judge):
    scripted = judge()
    verdicts = ENVIRONMENT.verify_group(row(), [Response("3 as ever", "so")] * 8)
    assert len({v.reward for v in verdicts}) == 1
    assert verdicts[0].reward is not None
    assert scripted.asked == []
    nano = ENVIRONMENT.verify_group(next(ENVIRONMENT.generate(1, 0, 1)), [Response(OIL, "so")] * 8)
    assert len({v.reward for v in nano}) == 1


def test_equal_answers_are_judged_once_and_differ_by_their_reasoning_alone(judge):
    scripted = judge()
    responses = [Response("4", "long thoughts"), Response("4", "short"), Response("2", "medium one")]
    first, second, third = ENVIRONMENT.verify_group(row(), responses)
    assert (first.quality, second.quality, third.quality) == (4, 4, 2)
    assert second.reward > first.reward > third.reward
    assert len(scripted.asked) == 2


def test_no_answer_is_reward_0_and_a_lone_answer_is_average(judge):
    judge()
    verdicts = ENVIRONMENT.verify_group(row(), [Response(""), Response("5"), Response(" \n", "thoughts")])
    assert [v.reward for v in verdicts] == [0, ranking.reward(ranking.NEUTRAL + 0.5), 0]
    assert [v.reward for v in ENVIRONMENT.verify_group(row(), [Response("")] * 3)] == [0, 0, 0]
    assert ENVIRONMENT.verify_group(row(), []) == []


def test_what_the_judge_cannot_decide_is_a_failure_of_those_it_concerns(judge):
    judge("0 odd")
    responses = [Response("4"), Response("0 odd"), Response("2"), Response("3"), Response("")]
    verdicts = ENVIRONMENT.verify_group(row(), responses)
    assert [v.failure for v in verdicts] == [None, "judge_malformed", None, None, None]
    assert verdicts[1].reason == "0 odd is beyond the judge"
    assert verdicts[0].reward > verdicts[3].reward > verdicts[2].reward > verdicts[4].reward == 0
    judge("4", "2")
    assert [v.failure for v in ENVIRONMENT.verify_group(row(), responses)] == ["judge_malformed"] * 4 + [None]


# One response


def test_a_single_response_wins_ties_or_loses_against_the_reference(judge):
    scripted = judge()
    rewards = [ENVIRONMENT.verify(row(reference="3"), Response(text)).reward for text in ("4", "3 too", "2", "3")]
    assert rewards == [1.0, 0.5, 0.0, 0.5]
    assert scripted.asked[:2] == [("4", "3"), ("3", "4")]
    assert len(scripted.asked) == 6, "the reference itself needs no judge"
    assert ENVIRONMENT.verify(row(reference="3"), Response(" ")).reward == 0


def test_what_cannot_be_judged_is_a_typed_failure(judge):
    no_judge = {"responses_create_params": {"input": COOK}, "reference": "3"}
    assert ENVIRONMENT.verify(no_judge, Response("4")).failure == "no_judge"
    assert "judges: {preference:" in ENVIRONMENT.verify(no_judge, Response("4")).reason
    assert [v.failure for v in ENVIRONMENT.verify_group(no_judge, [Response("4"), Response("")])] == ["no_judge", None]
    assert ENVIRONMENT.verify(row(), Response("4")).failure == "no_reference"
    judge("4")
    assert ENVIRONMENT.verify(row(reference="3"), Response("4")).failure == "judge_malformed"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"responses_create_params": {"input": COOK}}, "no_judge"),
        (row([{"role": "user", "content": 'What is "SKILL"?'}]), "unknown_request"),
        (row(MORE[:2]), "no_request"),
        (row([{"role": "user", "content": " "}]), "no_request"),
        (row(reference=""), "bad_reference"),
        (row(reference=["a"]), "bad_reference"),
        ({"judge": "nano"}, "no_prompt"),
    ],
)
def test_bad_rows_are_refused(bad, code):
    with pytest.raises(RowError) as caught:
        ENVIRONMENT.check_row(bad)
    assert caught.value.code == code


def test_a_row_of_any_request_is_good_where_the_recipe_has_a_judge(judge):
    judge()
    ENVIRONMENT.check_row({"responses_create_params": {"input": 'What is "SKILL"?'}})


# Outside


def test_gym_s_rows_are_judged_over_the_api():
    if not SAMPLES.exists():
        pytest.skip(f"{SAMPLES} is not there")

    def prefers_an_answer(body: dict) -> str:
        shown = json.loads(body["messages"][-1]["content"])
        first, second = (2 + 3 * ("answer" in shown[key]) for key in ("response_1", "response_2"))
        return verdict(first, second, 3.5 - (first - second) / 2)

    with serving(prefers_an_answer) as server:
        try:
            judges.use(Judges(preference=server.endpoint()))
            for line in SAMPLES.read_text().splitlines():
                sample = json.loads(line)
                assert environment_of(sample) is ENVIRONMENT
                ENVIRONMENT.check_row(sample)
                accepted, rejected = ENVIRONMENT.verify_group(sample, [Response("My answer."), Response("Dunno.")])
                assert accepted.reward > rejected.reward
                assert ENVIRONMENT.verify({**sample, "reference": "Dunno."}, Response("My answer.")).reward == 1
                assert ENVIRONMENT.verify({**sample, "reference": "My answer."}, Response("Dunno.")).reward == 0
        finally:
            judges.use(Judges())


def test_a_file_of_rollouts_is_scored_against_the_references(tmp_path):
    rows = list(ENVIRONMENT.generate(10, seed=0, level=3))
    lines = [{**one, "response": one["demonstration"]["content"]} for one in rows]
    lines += [{**one, "response": one["reference"]} for one in rows] + [{**one, "response": "No."} for one in rows]
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert score_file(path).mean_reward == 0.5
