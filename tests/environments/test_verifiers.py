"""Environments of the Environments Hub: their questions are turns, their rubric is the reward, what fails is typed."""

import json
from pathlib import Path

import pytest

from cascade.chat import Response
from cascade.curation import sources
from cascade.environments import verifiers
from cascade.environments.registry import environment_of, get
from cascade.environments.verification import judge
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source
from tests.environments.hub_environment import install

HUB = get("verifiers")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    return install(tmp_path_factory.mktemp("hub"))


def row(python: str, index: int = 1, **arguments):
    found = list(verifiers.tasks("guessing", python, arguments))[index]
    assert isinstance(found, dict)
    return found


def test_its_tasks_are_rows_that_name_it(python):
    found = row(python)
    HUB.check_row(found)
    assert environment_of(found) is HUB
    assert found["responses_create_params"] == {"input": [{"role": "user", "content": "Guess 1."}]}
    json.dumps(found)


def test_one_turn_is_rewarded_by_its_rubric(python):
    right, wrong = (HUB.verify(row(python), Response(text)) for text in ("1", "2"))
    assert (right.reward, right.extracted, wrong.reward) == (1, {"turns": 1}, 0)


def test_of_many_turns_each_answer_opens_the_next(python):
    episode = HUB.start(row(python, turns=5))
    assert episode.answer(Response("7")) == [{"role": "user", "content": "Not 7. Again."}]
    assert episode.answer(Response("8")) == [{"role": "user", "content": "Not 8. Again."}]
    assert episode.answer(Response("1")) is None
    assert (episode.verdict().reward, episode.verdict().extracted) == (1, {"turns": 3})
    episode.close()


def test_episodes_under_way_at_once_are_kept_apart(python):
    episodes = [HUB.start(row(python, index, turns=3)) for index in (0, 1, 2)]
    assert [episode.answer(Response("1")) is None for episode in episodes] == [False, True, False]
    assert [episode.answer(Response("0")) is None for episode in episodes] == [True, True, False]
    for episode in episodes:
        episode.close()


def test_what_a_limit_cuts_off_has_no_reward_and_one_turn_is_no_episode_of_many(python):
    many = row(python, turns=5)
    episode = HUB.start(many)
    episode.answer(Response("7"))
    assert episode.verdict().reward == 0
    episode.close()
    assert HUB.verify(many, Response("7")).failure == "no_episode"


@pytest.mark.parametrize(
    ("mood", "failure", "says"),
    [
        ("rubric", "rubric_error", "division by zero"),
        ("high", "reward_out_of_range", "7.0"),
        ("dies", "environment_gone", "ended"),
    ],
)
def test_failures_are_typed(python, mood, failure, says):
    # The row as it was before the environment had this trouble, which the adapter must not learn from as a zero.
    verdict = judge(HUB, row(python, moods={"1": mood}), Response("1"))
    assert (verdict.reward, verdict.failure) == (None, failure)
    assert says in verdict.reason


def test_a_metric_that_fails_costs_nothing(python):
    assert HUB.verify(row(python, moods={"1": "metric"}), Response("1")).reward == 1


def test_a_task_that_cannot_be_begun_is_a_bad_row(python):
    found = list(verifiers.tasks("guessing", python, {"moods": {"1": "raises"}}))
    assert [isinstance(one, RowError) for one in found] == [False, True, False]
    assert "KeyError" in str(found[1])


def test_an_environment_that_has_changed_is_a_failure(python):
    old = row(python)
    old["responses_create_params"] = {"input": [{"role": "user", "content": "Guess 5."}]}
    assert HUB.verify(old, Response("1")).failure == "other_prompt"


def test_what_is_not_there_is_one_line(python, tmp_path):
    with pytest.raises(CascadeError, match=r"verifiers nothing: .*install the environment and `verifiers` into"):
        list(verifiers.tasks("nothing", python, {}))
    with pytest.raises(CascadeError, match="cannot be started"):
        list(verifiers.tasks("guessing", str(tmp_path / "python"), {}))
    with pytest.raises(RowError, match="no `verifiers`"):
        HUB.check_row({"responses_create_params": {"input": "x"}})


def test_a_source_names_it(python, tmp_path):
    source = Source.model_validate({"domain": "games", "rl": -1, "verifiers": {"name": "guessing", "python": python}})
    assert [found["id"] for found in sources.stored(source, "games", tmp_path)] == [f"guessing-{n}" for n in range(3)]
    assert source.rows_name == "verifiers"
    assert Source.model_validate({"domain": "games", "verifiers": "guessing"}).verifiers.name == "guessing"
    for extra in ({"path": "x.jsonl"}, {"sft": 3}, {"gym_url": "http://gym"}):
        with pytest.raises(ValueError, match="verifiers"):
            Source.model_validate({"domain": "games", "verifiers": "guessing", **extra})
    assert Path(python).exists()
