"""Engine nemo with NeMo Automodel's own Nemotron v3 class, as far as it runs without a GPU: layers but Mamba."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from cascade.policy.checkpoint import load_checkpoint, save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.policy.nemo import NemoPolicy
from tests.distributed.worker import OPTIMIZER, objective, sequences
from tests.policy import tiny

nemotron = pytest.importorskip(
    "nemo_automodel.components.models.nemotron_v3.model",
    reason="nemo-automodel is not here; `make test-engines` installs it",
)


class OnCPU(NemoPolicy):
    """All of the engine but NeMo's loader, which asks for a GPU."""

    def _load(self) -> Any:
        config = AutoConfig.from_pretrained(self._source)
        config.dtype = "float32"
        net = nemotron.NemotronHForCausalLM(config).float()
        net.load_state_dict(net.state_dict_adapter.from_hf(load_file(self._source / "model.safetensors")))
        return net


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nemo") / "model"
    save_checkpoint(tiny.nemotron_h("E*E-"), tiny.tokenizer(), directory)
    return directory


def test_steps_equal_the_hf_engine_s(checkpoint: Path, tmp_path: Path) -> None:
    hf, nemo = HFPolicy(checkpoint, OPTIMIZER), OnCPU(checkpoint, OPTIMIZER, "cpu")
    torch.testing.assert_close(nemo.score(sequences()).log_probs, hf.score(sequences()).log_probs, atol=1e-5, rtol=0)
    for _ in range(2):
        one, other = (policy.step(sequences(), objective, 0.01) for policy in (hf, nemo))
        assert other.loss == pytest.approx(one.loss, rel=1e-6)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-5)
    nemo.save(tmp_path / "saved")
    names = [sorted(load_file(path / "model.safetensors")) for path in (checkpoint, tmp_path / "saved")]
    assert names[0] == names[1]
    again = HFPolicy(tmp_path / "saved").score(sequences()).log_probs
    torch.testing.assert_close(again, nemo.score(sequences()).log_probs, atol=1e-5, rtol=0)
    model, _ = load_checkpoint(tmp_path / "saved")
    assert type(nemo.model) is type(model)


def test_a_frozen_router_stays_and_its_load_is_reported(checkpoint: Path) -> None:
    policy = OnCPU(checkpoint, OPTIMIZER, "cpu", update_router=False)
    gates = {n: p.clone() for n, p in policy._net.named_parameters() if n.endswith("gate.weight")}
    assert len(gates) == 2
    report = policy.step(sequences(), objective, 0.01)
    after = dict(policy._net.named_parameters())
    assert all(torch.equal(after[name], gate) for name, gate in gates.items())
    assert report.expert_load is not None
    torch.testing.assert_close(report.expert_load.sum(1), torch.ones(2))
    assert report.expert_load.shape == (2, 6)
