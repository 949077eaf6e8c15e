"""Parameters that a model holds in a wider type than its checkpoint compute as they will be saved."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from cascade.policy.consolidate import stored_narrower
from cascade.policy.master_weights import MasterWeights
from cascade.recipe import Optimizer
from tests.policy import tiny


def test_a_float32_parameter_stored_in_bfloat16_is_written_back_rounded() -> None:
    net = nn.ParameterDict({"A_log": nn.Parameter(torch.tensor([0.5, 1.0])), "w": nn.Parameter(torch.tensor([0.5]))})
    masters = MasterWeights(net, Optimizer(learning_rate=1e-3), {"A_log": torch.bfloat16})
    with torch.no_grad():
        for weight in masters.weights.values():
            weight += 0.001
    masters.write_back()
    assert net["A_log"].tolist() == torch.tensor([0.501, 1.001]).bfloat16().tolist() == [0.5, 1.0]
    assert net["w"].tolist() == torch.tensor([0.501]).tolist()
    assert masters.weights["A_log"].tolist() == torch.tensor([0.501, 1.001]).tolist()  # What is trained is not rounded.


def test_what_the_checkpoint_stores_narrower_is_found(tmp_path: Path) -> None:
    model = tiny.qwen3()
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert set(stored_narrower(model.float(), tmp_path).values()) == {torch.bfloat16}
    assert stored_narrower(model.bfloat16(), tmp_path) == {}
