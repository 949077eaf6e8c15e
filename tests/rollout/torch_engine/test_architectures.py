"""Every kind of model trains, samples, scores and reloads, and all say the same of its distribution."""

import random

import architectures
import pytest
import tiny
import torch

from cascade.policy.base import Sequence
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler

CLOSE = {"atol": 2e-5, "rtol": 0}


def sequences(asked, samples):
    return [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
        for r, s in zip(asked, samples, strict=True)
    ]


@pytest.mark.parametrize("name", list(architectures.SETTINGS))
def test_trains_samples_scores_and_reloads(name, tmp_path):
    save_checkpoint(architectures.make(name), tiny.tokenizer(), tmp_path / "model")
    policy = HFPolicy(tmp_path / "model", Optimizer(learning_rate=1e-3))
    draw = random.Random(0)
    prompts = [[draw.randrange(3, tiny.VOCABULARY) for _ in range(length)] for length in (3, 21, 9)]
    asked = [SampleRequest(prompt, 10 * n + k) for n, prompt in enumerate(prompts) for k in range(2)]
    sampler = TorchSampler(policy, range(0, tiny.VOCABULARY, 20))
    batch = sequences(asked, sampler.sample(asked, max_new_tokens=12))
    before = policy.score(batch).log_probs
    report = policy.step(batch, lambda log_probs, _: -log_probs.mean(), 1e-3)
    torch.testing.assert_close(report.scores.log_probs, before, **CLOSE)
    after = policy.score(batch).log_probs
    assert after.mean() > before.mean()
    sampler.refresh(policy)
    samples = sampler.sample(asked, max_new_tokens=12)
    batch = sequences(asked, samples)
    scores = policy.score(batch).log_probs
    torch.testing.assert_close(torch.tensor([x for s in samples for x in s.log_probs]), scores, **CLOSE)
    policy.save(tmp_path / "trained")
    again = HFPolicy(tmp_path / "trained")
    torch.testing.assert_close(again.score(batch).log_probs, scores, atol=2e-6, rtol=0)
    # What others read in the checkpoint.
    tokens = torch.tensor([batch[2].token_ids])
    with torch.no_grad():
        log_probs = again.model(tokens).logits[0, :-1].float().log_softmax(-1)
    first = sum(len(s.token_ids) for s in samples[:2])
    start, ids = len(asked[2].prompt), samples[2].token_ids
    expected = log_probs[start - 1 :].gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(scores[first : first + len(ids)], expected, **CLOSE)
