"""Adapters on CUDA: the same initial values as on the CPU, the sampler's copy of the merged weights, resuming."""

import pytest
import tiny
import torch

from cascade.policy.checkpoint import stored_types
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
def test_adapters_train_sample_and_resume(kind: str, tmp_path, deterministic):
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
    assert [name for name, value in adapters(trained).items() if not torch.equal(value, again[name])] == []
    trained.save(tmp_path / "merged")
    gap = HFPolicy(tmp_path / "merged", None, "cuda").score(batch).log_probs - trained.score(batch).log_probs
    assert gap.abs().max() < 1e-3


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("kind", ["nemotron_h", "qwen3"])
def test_a_bfloat16_checkpoint_is_trained_in_float32_and_saved_in_bfloat16(kind: str, lora: Lora | None, tmp_path):
    model = tiny.nemotron_h("ME*EM-", **WIDE) if kind == "nemotron_h" else tiny.MAKERS[kind]()
    tiny.save_checkpoint(model.to(torch.bfloat16), tiny.tokenizer(), tmp_path / "model")
    trained = HFPolicy(tmp_path / "model", Optimizer(learning_rate=1e-5), "cuda", lora=lora, seed=1)
    start = {name: value.clone() for name, value in trained.model.state_dict().items()}
    sampler = TorchSampler(trained, stop=())
    asked = requests(24)
    batch = sequences(asked, sampler.sample(asked, max_new_tokens=20))
    for _ in range(3):
        trained.step(batch, lambda log_probs, _: -log_probs.mean(), 1e-5)
    moved = {n: (v - start[n]).abs() for n, v in trained.model.state_dict().items() if not torch.equal(v, start[n])}
    assert {trained.model.state_dict()[name].dtype for name in moved} == {torch.float32}
    # Steps that bfloat16 masters would have rounded away.
    small = [
        value.bfloat16().float() != start[name] for name, value in trained.model.state_dict().items() if name in moved
    ]
    assert moved
    assert sum(int(x.sum()) for x in small) < 0.5 * sum(int((m > 0).sum()) for m in moved.values())

    sampler.refresh(trained)
    after = sampler.sample(asked, max_new_tokens=20)
    sampled = torch.tensor([x for sample in after for x in sample.log_probs])
    exact = trained.score(sequences(asked, after)).log_probs
    assert (exact - sampled).abs().mean() < 0.05
    trained.save(tmp_path / "saved")
    assert set(stored_types(tmp_path / "saved").values()) == set(stored_types(tmp_path / "model").values())
    loaded = HFPolicy(tmp_path / "saved", None, "cuda").score(sequences(asked, after)).log_probs
    # As the policy is after saving, which rounds it; and by no more than that rounding, as it was before.
    assert (loaded - trained.score(sequences(asked, after)).log_probs).abs().max() < 1e-3
    assert (loaded - exact).abs().mean() < 0.05
