"""Every kind of Llama-type model: sampled by the trainer's distribution, greedily what transformers generates."""

import llamas
import pytest
import tiny
import torch

from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.rollout.torch_engine.cached_decoder import CachedDecoder
from cascade.rollout.torch_engine.sampler import TorchSampler
from tests.rollout.torch_engine.test_cuda_graphs import StaticSampler, assert_equal_samples
from tests.rollout.torch_engine.test_sampler import STOP, requests, score


@pytest.fixture(scope="module", params=list(llamas.KINDS))
def policy(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint") / "model"
    save_checkpoint(llamas.make(request.param), tiny.tokenizer(), directory)
    return HFPolicy(directory)


def test_log_probabilities_are_the_trainers(policy):
    asked, sampler = requests(), TorchSampler(policy, STOP)
    assert isinstance(sampler._decoder(), CachedDecoder)
    samples = sampler.sample(asked, max_new_tokens=45)
    assert len({len(s.token_ids) for s in samples}) > 3
    sampled = torch.tensor([x for s in samples for x in s.log_probs])
    torch.testing.assert_close(sampled, score(policy, asked, samples), atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [TorchSampler, StaticSampler])
def test_greedy_is_transformers_generate(policy, make):
    asked = requests(7)
    samples = make(policy, stop=()).sample(asked, max_new_tokens=12, temperature=1e-6)
    for request, sample in zip(asked, samples, strict=True):
        output = policy.model.generate(
            torch.tensor([request.prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert output[0, len(request.prompt) :].tolist() == sample.token_ids


def test_captured_steps_sample_what_the_cpu_decoder_does(policy):
    sampler, reference = StaticSampler(policy, STOP), TorchSampler(policy, STOP)
    for count, limit in ((30, 40), (3, 5)):
        asked = requests(count)
        samples = sampler.sample(asked, max_new_tokens=limit)
        assert_equal_samples(samples, reference.sample(asked, max_new_tokens=limit))
