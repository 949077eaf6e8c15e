import random

import pytest
import tiny
import torch

from cascade.policy.base import Sequence
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler, stop_tokens

KINDS = list(tiny.MAKERS)
STOP = range(0, tiny.VOCABULARY, 12)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: HFPolicy(tiny.checkpoint(root / kind, kind)) for kind in KINDS}


def requests(count=24, prompts=7):
    draw = random.Random(1)
    texts = [[draw.randrange(3, tiny.VOCABULARY) for _ in range(n)] for n in (1, 2, 3, 17, 40, 41, 60)[:prompts]]
    return [SampleRequest(texts[n % prompts], n) for n in range(count)]


def score(policy, asked, samples):
    sequences = [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
        for r, s in zip(asked, samples, strict=True)
    ]
    return policy.score(sequences).log_probs


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_the_trainers_for_prompts_of_mixed_lengths(policies, kind):
    asked = requests()
    samples = TorchSampler(policies[kind], STOP).sample(asked, max_new_tokens=45)
    assert len({len(s.token_ids) for s in samples}) > 3
    sampled = torch.tensor([x for s in samples for x in s.log_probs])
    torch.testing.assert_close(sampled, score(policies[kind], asked, samples), atol=1e-4, rtol=0)


def test_log_probabilities_are_the_trainers_where_the_time_step_is_limited(tmp_path):
    """On a configuration like the released models', and on one whose layers are limited."""
    for limit in ((0.0, float("inf")), (0.01, 0.2)):
        directory = tmp_path / str(limit[0])
        save_checkpoint(tiny.nemotron_h(time_step_min=0.001, time_step_limit=limit), tiny.tokenizer(), directory)
        policy, asked = HFPolicy(directory), requests()
        samples = TorchSampler(policy, STOP).sample(asked, max_new_tokens=45)
        sampled = torch.tensor([x for s in samples for x in s.log_probs])
        torch.testing.assert_close(sampled, score(policy, asked, samples), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_depends_on_its_request_alone(policies, kind):
    asked = requests()
    sampler = TorchSampler(policies[kind], STOP)
    samples = sampler.sample(asked, max_new_tokens=30)
    order = random.Random(0).sample(range(len(asked)), 15)
    again = TorchSampler(policies[kind], STOP, max_rows=4).sample([asked[n] for n in order], max_new_tokens=30)
    assert [s.token_ids for s in again] == [samples[n].token_ids for n in order]
    alone = sampler.sample(asked[6:7], max_new_tokens=30)[0]
    assert alone.token_ids == samples[6].token_ids
    torch.testing.assert_close(alone.log_probs, samples[6].log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_generate(policies, kind):
    asked = requests(7)
    samples = TorchSampler(policies[kind], stop=()).sample(asked, max_new_tokens=12, temperature=1e-6)
    for request, sample in zip(asked, samples, strict=True):
        output = policies[kind].model.generate(
            torch.tensor([request.prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert output[0, len(request.prompt) :].tolist() == sample.token_ids


@pytest.mark.parametrize("kind", KINDS)
def test_responses_end_with_a_stop_token_or_at_the_limit(policies, kind):
    samples = TorchSampler(policies[kind], STOP).sample(requests(60), max_new_tokens=20)
    assert {s.finished for s in samples} == {True, False}
    for sample in samples:
        assert len(sample.token_ids) == len(sample.log_probs) <= 20
        assert sample.finished == (sample.token_ids[-1] in STOP)
        assert not any(token in STOP for token in sample.token_ids[:-1])
        assert sample.finished or len(sample.token_ids) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_finished_rows_leave_the_batch(policies, kind, monkeypatch):
    sampler = TorchSampler(policies[kind], STOP)
    sizes = []
    make = sampler._decoder

    def watched():
        decoder = make()
        step = decoder.step
        monkeypatch.setattr(decoder, "step", lambda tokens: sizes.append(len(tokens)) or step(tokens))
        return decoder

    monkeypatch.setattr(sampler, "_decoder", watched)
    samples = sampler.sample(requests(40), max_new_tokens=40)
    for position, size in enumerate(sizes):
        running = sum(len(s.token_ids) > position + 1 for s in samples)
        assert running <= size <= running / (1 - 0.125) + 1
    assert sizes[-1] < 40


def test_refresh_takes_over_new_weights(policies, tmp_path):
    policy = HFPolicy(tiny.checkpoint(tmp_path / "model"), Optimizer(learning_rate=1.0))
    sampler = TorchSampler(policy, STOP)
    asked = requests()
    before = sampler.sample(asked, max_new_tokens=10)
    for _ in range(3):
        policy.step([Sequence([3, 4, 5, 6], [False, True, True, True])], lambda p, _: -p.sum(), 0.01)
    sampler.refresh(policy)
    samples = sampler.sample(asked, max_new_tokens=10)
    assert [s.token_ids for s in samples] != [s.token_ids for s in before]
    sampled = torch.tensor([x for s in samples for x in s.log_probs])
    torch.testing.assert_close(sampled, score(policy, asked, samples), atol=1e-4, rtol=0)


def test_top_p_and_temperature_reach_the_draw(policies):
    sampler = TorchSampler(policies["qwen3"], stop=())
    hot = sampler.sample(requests(), max_new_tokens=5, temperature=5.0)
    nucleus = sampler.sample(requests(), max_new_tokens=5, temperature=5.0, top_p=1e-6)
    greedy = sampler.sample(requests(), max_new_tokens=5, temperature=1e-6)
    assert [s.token_ids for s in nucleus] == [s.token_ids for s in greedy]
    assert [s.token_ids for s in hot] != [s.token_ids for s in greedy]


def test_stop_tokens_are_those_of_tokenizer_and_generation_config(policies):
    policy = policies["nemotron_h"]
    assert stop_tokens(policy.model, policy.tokenizer) == {2}


def test_no_requests_give_no_samples(policies):
    assert TorchSampler(policies["nemotron_h"]).sample([], max_new_tokens=4) == []
