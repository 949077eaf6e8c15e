"""From a sample to its verdict: the text that is judged, and verifiers that misbehave."""

import pytest

from cascade.environments import Verdict
from cascade.environments.judging import judge, judge_text, text_of
from cascade.rollout.base import Sample
from tests.training.miniature import VOCABULARY, FindTheWord, make_tokenizer

ROW = {"word": "w1"}


def sample(text: str, finished: bool) -> Sample:
    ids = [VOCABULARY.index(word) for word in text.split()]
    return Sample(ids, [0.0] * len(ids), finished)


def test_the_text_is_all_that_was_sampled_but_the_end_of_turn():
    tokenizer = make_tokenizer()
    assert text_of(tokenizer, sample("w1 <user> w2 </s>", True)) == "w1 <user> w2"
    assert text_of(tokenizer, sample("w1 <user> w2", False)) == "w1 <user> w2"


def test_in_thinking_mode_only_what_follows_the_reasoning_is_judged():
    def reward(text: str, thinking: bool) -> float | None:
        return judge_text(FindTheWord(), ROW, text, thinking=thinking, finished=True).reward

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
