"""Judging: overlong rules, zero variance, what is kept of a step's rollouts."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.environments import Verdict
from cascade.environments.judging import judge_text
from cascade.rollout.base import Sample, SampleRequest
from cascade.training.batch import Batch
from cascade.training.metrics import rollout_metrics
from cascade.training.prompts import Cursor, Prompt, PromptSource
from cascade.training.rollouts import Collected, Collector, sample_rows
from tests.training.miniature import VOCABULARY, make_recipe, make_tokenizer, prompt_rows


class Scripted:
    """Answers each request with the next of its texts; `</s>` at the end makes it finished."""

    def __init__(self, *texts: str):
        self.texts = list(texts)
        self.requests: list[SampleRequest] = []

    def sample(self, requests, *, max_new_tokens, temperature, top_p):
        self.requests += requests
        answers, self.texts = self.texts[: len(requests)], self.texts[len(requests) :]
        ids = [[VOCABULARY.index(word) for word in text.split()] for text in answers]
        return [Sample(i, [-1.0] * len(i), i[-1] == 1) for i in ids]


def collect(sampler: Scripted, prompts: int = 1, size: int = 10, **changes) -> Collected:
    node = make_recipe(rl={"mix": {"one": 1.0}, "prompts": prompts, "rollouts": 4, **changes}).rl["rl"]
    rows = [Prompt(r["id"], "one", r["environment"], r["row"]) for r in prompt_rows("one", size, word="w0")]
    source = PromptSource({"one": rows}, node.mix, 0, "rl", cursor=Cursor())
    with ThreadPoolExecutor(2) as pool:
        return Collector(node, "rl", 0, sampler, make_tokenizer(), source, pool).collect(0)


MIXED = ("w0 w1 </s>", "w1 </s>", "w0 w0 w0", "w2 w2 w2")


@pytest.mark.parametrize(
    ("rule", "rewards"), [("zero", [1, 0, 0, 0]), ("mask", [1, 0, None, None]), ("keep", [1, 0, 1, 0])]
)
def test_overlong_responses_get_zero_or_are_masked_or_are_judged(rule: str, rewards: list):
    collected = collect(Scripted(*MIXED), overlong=rule)
    (group,) = collected.kept
    assert [rollout.reward for rollout in group.rollouts] == rewards
    batch = Batch.of(collected.kept, rewarded=True)
    assert len(batch.rollouts) == 4 - rewards.count(None)
    assert batch.tokens == (11 if rule != "mask" else 5)
    assert batch.owner.tolist()[:5] == [0, 0, 0, 1, 1]
    assert batch.sequences[0].trained == [False] * 4 + [True] * 3


def test_masking_can_leave_a_group_without_variance():
    collected = collect(Scripted("w0 </s>", "w0 </s>", "w1 w1", "w1 w1"), overlong="mask", max_refills=0)
    assert not collected.kept
    assert len(collected.dropped) == 1
    assert Batch.of(collected.kept, rewarded=True) is None


@pytest.mark.parametrize(
    ("bound", "filtering", "low_best", "kept"),
    [
        (0.0, True, 0, 1),
        (0.4, True, 0, 1),
        (0.5, True, 1, 0),
        (0.9, True, 1, 0),
        (0.5, False, 2, 0),
        (0.0, False, 0, 2),
    ],
)
def test_groups_whose_best_reward_does_not_exceed_the_bound_are_dropped_and_counted_apart(
    monkeypatch, bound: float, filtering: bool, low_best: int, kept: int
):
    halved = {0.0: 0.0, 1.0: 0.5}
    monkeypatch.setattr(
        "cascade.training.rollouts.judge_text",
        lambda *args, **options: Verdict(halved[judge_text(*args, **options).reward]),
    )
    none, some = ["w1 </s>"] * 4, ["w0 </s>", *["w1 </s>"] * 3]
    sampler = Scripted(*none, *some)
    collected = collect(
        sampler, prompts=2, max_refills=0, dynamic_filtering=filtering, **({"min_best_reward": bound} if bound else {})
    )
    assert (len(collected.low_best), len(collected.kept)) == (low_best, kept)
    assert len(collected.dropped) == 2 - kept
    values = rollout_metrics(collected)
    assert values["rollout/low_best"] == values["rollout/low_best/one"] == low_best / 2
    assert values["rollout/filtered"] == 1 - kept / 2
    assert values["rollout/zero_variance"] == 0.5


def test_refills_stop_when_the_batch_is_full_and_take_new_prompts_with_new_seeds():
    none, some = ["w1 </s>"] * 4, ["w0 </s>", *["w1 </s>"] * 3]
    sampler = Scripted(*none, *some, *none, *some)
    collected = collect(sampler, prompts=2, max_refills=5)
    assert (len(collected.kept), len(collected.dropped), collected.refills) == (2, 2, 2)
    assert len({group.prompt.id for group in collected.groups}) == 4
    assert len({request.seed for request in sampler.requests}) == 16


def test_a_prompt_drawn_again_in_one_step_is_sampled_anew():
    sampler = Scripted(*["w0 </s>", *["w1 </s>"] * 3] * 3)
    collected = collect(sampler, prompts=3, size=1)
    assert {group.prompt.id for group in collected.groups} == {"one-0"}
    assert len({request.seed for request in sampler.requests}) == 12


def test_the_sample_table_shows_best_worst_longest():
    (group,) = collect(Scripted(*MIXED), overlong="zero").kept
    rows = sample_rows(group.rollouts, step=3)
    assert [(row["kind"], row["response"], row["reward"]) for row in rows] == [
        ("best", "w0 w1", 1),
        ("worst", "w1", 0),
        ("longest", "w0 w1", 1),
    ]
    assert rows[0]["prompt"][0]["role"] == "user"
