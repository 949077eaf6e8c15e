"""The decoder for CUDA, its steps run one by one in float32: the same samples as the CPU's own decoder."""

import random

import pytest
import tiny
import torch

from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.cuda_graphs import CHECK, GraphDecoder, batch_size
from cascade.rollout.torch_engine.sampler import TorchSampler

STOP = range(0, tiny.VOCABULARY, 12)


class StaticSampler(TorchSampler):
    """Decodes as on CUDA."""

    def refresh(self, policy):
        super().refresh(policy)
        if self._graphs is None:
            self._graphs = GraphDecoder(policy.model, torch.float32)
        self._graphs.load()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return HFPolicy(tiny.checkpoint(tmp_path_factory.mktemp("checkpoint") / "model"))


def requests(count, seed=0):
    draw = random.Random(1)
    texts = [[draw.randrange(3, tiny.VOCABULARY) for _ in range(n)] for n in (1, 2, 3, 17, 40, 41, 60)]
    return [SampleRequest(texts[n % len(texts)], seed + n) for n in range(count)]


def assert_equal_samples(ours, theirs):
    assert [s.token_ids for s in ours] == [s.token_ids for s in theirs]
    assert [s.finished for s in ours] == [s.finished for s in theirs]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, atol=1e-4, rtol=0)


def test_samples_are_those_of_the_cpu_decoder_for_any_number_of_rows(policy):
    sampler, reference = StaticSampler(policy, STOP), TorchSampler(policy, STOP)
    # Growing and shrinking batches, shorter and longer limits, over the same buffers.
    for count, limit in ((1, 5), (50, 45), (9, 3), (24, 33)):
        asked = requests(count, seed=count)
        samples = sampler.sample(asked, max_new_tokens=limit)
        assert_equal_samples(samples, reference.sample(asked, max_new_tokens=limit))


def test_rows_that_never_stop_run_to_the_limit(policy):
    samples = StaticSampler(policy, stop=()).sample(requests(3), max_new_tokens=17)
    assert [len(s.token_ids) for s in samples] == [17] * 3
    assert not any(s.finished for s in samples)


def test_batches_go_down_in_size_as_rows_finish(policy, monkeypatch):
    sampler = StaticSampler(policy, STOP)
    sizes = []
    step = sampler._graphs._step
    monkeypatch.setattr(sampler._graphs, "_step", lambda rows, number: sizes.append(rows) or step(rows, number))
    samples = sampler.sample(requests(60), max_new_tokens=64)
    lengths = [len(s.token_ids) for s in samples]
    for number, size in enumerate(sizes):
        # The first token comes with the prompt; then there is a look before each replay.
        looked = 1 + number // CHECK * CHECK
        assert size == batch_size(sum(n > looked for n in lengths))
    assert sizes[-1] < sizes[0]
    assert len(sizes) % CHECK == 0


def test_refresh_takes_over_new_weights_in_place(tmp_path):
    policy = HFPolicy(tiny.checkpoint(tmp_path / "model"), Optimizer(learning_rate=1.0))
    sampler = StaticSampler(policy, STOP)
    before = sampler.sample(requests(8), max_new_tokens=10)
    decoder = sampler._graphs
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    sampler.refresh(policy)
    assert sampler._graphs is decoder
    after = sampler.sample(requests(8), max_new_tokens=10)
    assert [s.token_ids for s in after] != [s.token_ids for s in before]
    assert_equal_samples(after, TorchSampler(policy, STOP).sample(requests(8), max_new_tokens=10))


def test_other_settings_are_captured_anew(policy):
    sampler, reference = StaticSampler(policy, STOP), TorchSampler(policy, STOP)
    for settings in ({}, {"temperature": 0.5}, {"top_p": 0.3}, {}):
        samples = sampler.sample(requests(10), max_new_tokens=6, **settings)
        assert_equal_samples(samples, reference.sample(requests(10), max_new_tokens=6, **settings))


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (8, 8), (9, 16), (129, 192), (512, 512)])
def test_batch_size_is_the_next_that_holds_the_rows(rows, size):
    assert batch_size(rows) == size


def test_latent_experts_and_groups_of_experts(tmp_path):
    model = tiny.nemotron_h("MEE*", moe_latent_size=16, n_group=2, topk_group=1)
    save_checkpoint(model, tiny.tokenizer(), tmp_path / "model")
    policy = HFPolicy(tmp_path / "model")
    samples = StaticSampler(policy, STOP).sample(requests(12), max_new_tokens=12)
    assert_equal_samples(samples, TorchSampler(policy, STOP).sample(requests(12), max_new_tokens=12))
