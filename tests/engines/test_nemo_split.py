"""Engine nemo with NeMo Automodel's own Nemotron v3 class in two processes, split by NeMo's own parallelizer."""

from pathlib import Path

import pytest
import torch

from cascade.policy.checkpoint import load_checkpoint, save_checkpoint
from cascade.policy.hf import HFPolicy
from tests.distributed.launch import started
from tests.distributed.worker import OPTIMIZER, objective, sequences
from tests.policy import tiny

pytest.importorskip(
    "nemo_automodel.components.models.nemotron_v3.model",
    reason="nemo-automodel is not here; `make test-engines` installs it",
)
LAYOUTS = ["1:layer", "1:keep", "2:layer", "2:keep", "2:again"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """By layout: experts whole or dealt out; layers gathered for a pass or for a step, activations computed again.
    `hf`: engine hf, alone."""
    folder = tmp_path_factory.mktemp("split")
    save_checkpoint(tiny.nemotron_h("E*E-"), tiny.tokenizer(), folder / "model")
    printed = started("../engines/split_worker.py", folder, *LAYOUTS)
    assert printed.endswith("exit 0"), printed[-3000:]
    hf = HFPolicy(folder / "model", OPTIMIZER)
    alone = {"before": hf.score(sequences()).log_probs}
    reports = [hf.step(sequences(), objective, 0.01) for _ in range(3)]
    alone |= {"losses": [r.loss for r in reports], "norms": [r.gradient_norm for r in reports]}
    alone["after"] = hf.score(sequences()).log_probs
    return {"hf": alone, **torch.load(folder / "found.2.pt", weights_only=False)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_equal_the_hf_engine_s_alone(layout: str, found: dict[str, dict]) -> None:
    one, other = found["hf"], found[layout]
    torch.testing.assert_close(other["before"], one["before"], atol=1e-5, rtol=0)
    assert other["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert other["norms"] == pytest.approx(one["norms"], rel=1e-3)
    torch.testing.assert_close(other["load"], found["1:layer"]["load"])
    assert (one["after"] - one["before"]).abs().max() > 0.05
    torch.testing.assert_close(other["after"], one["after"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sampler_s_weights_and_the_checkpoint_are_those_of_the_last_step(
    layout: str, found: dict[str, dict]
) -> None:
    model, _ = load_checkpoint(Path(found[layout]["saved"]))
    with torch.no_grad():
        torch.testing.assert_close(found[layout]["whole"], model(torch.tensor([[3, 4, 5, 6]])).logits)
