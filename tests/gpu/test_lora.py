"""Adapters on CUDA: the same initial values as on the CPU, the sampler's copy of the merged weights, resuming."""

import pytest
import tiny
import torch

from cascade.policy.hf import HFPolicy
from cascade.recipe import Lora, Optimizer
from cascade.rollout.torch_engine.sampler import TorchSampler
from tests.gpu.test_engines import WIDE, requests, sequences

pytest.importorskip("peft", reason="pip install -e '.[lora]'")

LORA = Lora(rank=8, alpha=16)


def policy(directory, device: str = "cuda", seed: int = 1) -> HFPolicy:
    return HFPolicy(directory, Optimizer(learning_rate=1e-2), device, lora=LORA, seed=seed)


def adapters(of: HFPolicy) -> dict[str, torch.Tensor]:
    return {name: value for name, value in of.training_state().items() if name.startswith("lora.")}


def step(of: HFPolicy, batch) -> None:
    of.step(batch, lambda log_probs, _: -log_probs.mean(), 1e-2)


@pytest.mark.parametrize("kind", ["nemotron_h", "qwen3"])
def test_adapters_train_sample_and_resume(kind: str, tmp_path):
    model = tiny.nemotron_h("ME*EM-", **WIDE) if kind == "nemotron_h" else tiny.MAKERS[kind]()
    tiny.save_checkpoint(model, tiny.tokenizer(), tmp_path / "model")
    trained, on_cpu = policy(tmp_path / "model"), policy(tmp_path / "model", "cpu")
    start = adapters(trained)
    assert all(torch.equal(value, start[name]) for name, value in adapters(on_cpu).items())

    sampler = TorchSampler(trained, stop=())
    asked = requests(24)
    before = sampler.sample(asked, max_new_tokens=20)
    batch = sequences(asked, before)
    for _ in range(2):
        step(trained, batch)
        step(on_cpu, batch)
    # Up to bfloat16: AdamW makes first steps of equal size, also of gradients that are mostly rounding.
    for name, value in adapters(on_cpu).items():
        assert (adapters(trained)[name] - value).abs().mean() < 0.6 * (value - start[name]).abs().mean(), name
    sampler.refresh(trained)
    after = sampler.sample(asked, max_new_tokens=20)
    assert after != before
    sampled = torch.tensor([x for sample in after for x in sample.log_probs])
    assert (trained.score(sequences(asked, after)).log_probs - sampled).abs().mean() < 0.05

    resumed = policy(tmp_path / "model", seed=2)
    resumed.load_training_state(trained.training_state())
    for each in (trained, resumed):
        step(each, batch)
    again = adapters(resumed)
    assert all(torch.equal(value, again[name]) for name, value in adapters(trained).items())
    trained.save(tmp_path / "merged")
    gap = HFPolicy(tmp_path / "merged", None, "cuda").score(batch).log_probs - trained.score(batch).log_probs
    assert gap.abs().max() < 1e-3
