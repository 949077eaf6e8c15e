"""Judging: overlong rules, zero variance, what is kept of a step's rollouts."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade import judges
from cascade.environments import GroupEnvironment, Verdict, registry
from cascade.environments.verification import judge_together
from cascade.rollout.base import Sample, SampleRequest
from cascade.training.batch import Batch
from cascade.training.collector import Collector
from cascade.training.groups import Collected
from cascade.training.metrics import rollout_metrics
from cascade.training.prompts import Cursor, Prompt, PromptSource
from cascade.training.samples import sample_rows, table_row
from tests.training.miniature import VOCABULARY, FindTheWord, make_recipe, make_tokenizer, prompt_rows


class Scripted:
    """Answers each request with the next of its texts; `</s>` at the end makes it finished."""

    def __init__(self, *texts: str):
        self.texts = list(texts)
        self.requests: list[SampleRequest] = []

    def sample(self, requests, *, max_new_tokens, temperature, top_p, on_finish):
        self.requests += requests
        answers, self.texts = self.texts[: len(requests)], self.texts[len(requests) :]
        ids = [[VOCABULARY.index(word) for word in text.split()] for text in answers]
        samples = [Sample(i, [-1.0] * len(i), i[-1] == 1) for i in ids]
        assert [on_finish(i, sample) for i, sample in enumerate(samples)] == [None] * len(samples)
        return samples


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
        "cascade.rollout.driver.judge_together",
        lambda *args: [Verdict(halved[verdict.reward]) for verdict in judge_together(*args)],
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


def test_quality_is_a_metric_where_rewards_are_relative(monkeypatch):
    assert not any("quality" in name for name in rollout_metrics(collect(Scripted(*MIXED))))
    monkeypatch.setattr(
        "cascade.rollout.driver.judge_together",
        lambda *args: [Verdict(found.reward, quality=1 + 4 * found.reward) for found in judge_together(*args)],
    )
    values = rollout_metrics(collect(Scripted(*MIXED), max_refills=0))
    assert 0 < values["rollout/reward"] < 1
    assert values["rollout/quality"] == values["rollout/quality/one"] == 1 + 4 * values["rollout/reward"]


class MostWords(FindTheWord, GroupEnvironment):
    """Reward 1 for the longest response of a group, 0 for the others; by itself, FindTheWord's."""

    def verify_group(self, row, responses):
        lengths = [len(response.content.split()) for response in responses]
        return [Verdict(float(length == max(lengths))) for length in lengths]


@pytest.fixture
def relative(monkeypatch):
    monkeypatch.setattr("find_the_word.ENVIRONMENT", MostWords())
    assert isinstance(registry.get("find_the_word"), GroupEnvironment)


@pytest.mark.parametrize(
    ("rule", "rewards"), [("zero", [1, 0, 0, 0]), ("mask", [1, 0, None, None]), ("keep", [0, 0, 1, 1])]
)
def test_a_relative_reward_is_of_the_group_without_its_overlong_rollouts(relative, rule: str, rewards: list):
    collected = collect(Scripted(*MIXED), overlong=rule)
    (group,) = collected.kept
    assert [rollout.reward for rollout in group.rollouts] == rewards
    assert [rollout.text for rollout in group.rollouts] == ["w0 w1", "w1", "w0 w0 w0", "w2 w2 w2"]


def test_each_group_is_compared_within_itself(relative):
    collected = collect(
        Scripted("w1 </s>", "w1 w1 </s>", *["w1 </s>"] * 2, *["w1 w2 w3 </s>"] * 3, "w1 </s>"), prompts=2
    )
    assert [group.rewards for group in collected.kept] == [[0, 1, 0, 0], [1, 1, 1, 0]]


def test_a_judge_that_breaks_costs_its_group_and_says_why(relative, monkeypatch):
    def broken(self, row, responses):
        raise RuntimeError("the judge broke")

    monkeypatch.setattr(MostWords, "verify_group", broken)
    collected = collect(Scripted(*MIXED), overlong="zero", max_failure_rate=1.0, dynamic_filtering=False)
    verdicts = [rollout.verdict for rollout in collected.rollouts]
    assert [v and v.failure for v in verdicts] == ["verifier_error", "verifier_error", None, None]
    assert verdicts[0].reason == "RuntimeError: the judge broke"


def test_what_judging_cost_is_measured_where_a_model_judged(monkeypatch):
    assert not any("judge" in name for name in rollout_metrics(collect(Scripted(*MIXED))))
    spent = judges.Usage(requests=6, retries=1, failures=0, prompt_tokens=500, completion_tokens=70, seconds=2.5)
    monkeypatch.setattr(judges, "take_usage", lambda: spent)
    metrics = rollout_metrics(collect(Scripted(*MIXED)))
    assert metrics["rollout/judge_requests"] == 6
    assert metrics["rollout/judge_completion_tokens"] == 70
    assert metrics["rollout/judge_seconds"] == 2.5


def test_a_table_shows_the_ends_of_a_long_response():
    row = {"step": 0, "prompt": [{"role": "user", "content": "Hi"}], "response": "a" * 5000 + "z" * 5000, "reward": 1.0}
    found = table_row(row)
    assert found["prompt"] == "user: Hi"
    assert found["response"] == "a" * 2000 + " [… 6,000 characters left out …] " + "z" * 2000
    assert (found["step"], found["reward"]) == (0, 1.0)
    assert table_row({**row, "response": "short"})["response"] == "short"
