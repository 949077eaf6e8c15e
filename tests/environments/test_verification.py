"""From a response to its verdict: what is judged, and verifiers that misbehave."""

import pytest

from cascade.chat import Response, parse_response
from cascade.environments import GroupEnvironment, Verdict
from cascade.environments.verification import judge, judge_together
from tests.training.miniature import FindTheWord

ROW = {"word": "w1"}


def test_in_thinking_mode_only_what_follows_the_reasoning_is_judged():
    def reward(text: str, thinking: bool) -> float | None:
        return judge(FindTheWord(), ROW, parse_response(text, thinking=thinking)).reward

    assert reward("w2 </think> w1", thinking=True) == 1
    assert reward("w1 </think> w2", thinking=True) == 0
    assert reward("w1", thinking=True) == 0
    assert reward("w1", thinking=False) == 1


class Fixed(FindTheWord):
    def __init__(self, reward: float):
        self._reward = reward

    def verify(self, row, response):
        return Verdict(self._reward)


@pytest.mark.parametrize("reward", [-0.5, 1.01, float("nan"), float("inf")])
def test_a_reward_out_of_range_is_a_failure(reward):
    verdict = judge(Fixed(reward), ROW, None)
    assert (verdict.reward, verdict.failure) == (None, "reward_out_of_range")
    assert [judge(Fixed(kept), ROW, None).reward for kept in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]


def test_a_verifier_that_raises_costs_its_rollout_and_says_why():
    verdict = judge(FindTheWord(), {"fail": "raise"}, None)
    assert (verdict.reward, verdict.failure) == (None, "verifier_error")
    assert verdict.reason == "RuntimeError: the verifier broke"
    assert judge(FindTheWord(), {"fail": "timeout"}, None).failure == "timeout"


class Ranks(FindTheWord, GroupEnvironment):
    """Rewards the responses of a group in their order."""

    def __init__(self, *rewards: float):
        self._rewards = rewards

    def verify_group(self, row, responses):
        return [Verdict(reward) for reward in self._rewards]


def test_responses_are_judged_together_where_the_reward_is_relative_and_one_by_one_elsewhere():
    responses = [Response("w1"), Response("w2")]
    assert [v.reward for v in judge_together(FindTheWord(), ROW, responses)] == [1, 0]
    assert [v.reward for v in judge_together(Ranks(0.2, 0.7), ROW, responses)] == [0.2, 0.7]
    assert judge(Ranks(0.2, 0.7), ROW, responses[0]).reward == 1, "by itself a response is verified"


def test_a_group_s_judge_that_misbehaves_costs_what_it_concerns():
    responses = [Response("w1"), Response("w2")]
    assert [v.failure for v in judge_together(Ranks(0.2, 1.5), ROW, responses)] == [None, "reward_out_of_range"]
    missing = judge_together(Ranks(0.2), ROW, responses)
    assert [v.failure for v in missing] == ["verifier_error"] * 2
    assert missing[0].reason == "ValueError: 1 verdicts for 2 responses"
