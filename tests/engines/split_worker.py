"""NeMo Automodel's Nemotron v3 class, split by its own parallelizer over gloo: split_worker.py FOLDER EXPERT:KEEP …

Layers but Mamba, which need a GPU."""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from cascade.policy.nemo import NemoPolicy
from cascade.recipe import Parallel
from cascade.utils import distributed
from tests.distributed.worker import OPTIMIZER, objective, sequences


class Split(NemoPolicy):
    """All of the engine but NeMo's loader, which asks for a GPU."""

    def _load(self) -> Any:
        from nemo_automodel.components.distributed.config import DistributedSetup, FSDP2Config
        from nemo_automodel.components.distributed.mesh import ParallelismSizes
        from nemo_automodel.components.distributed.model_parallelizer import parallelize_model
        from nemo_automodel.components.models.nemotron_v3 import model as nemotron
        from torch.distributed.fsdp import MixedPrecisionPolicy

        config = AutoConfig.from_pretrained(self._source)
        config.dtype = "float32"
        net = nemotron.NemotronHForCausalLM(config).float()
        net.load_state_dict(net.state_dict_adapter.from_hf(load_file(self._source / "model.safetensors")))
        if distributed.size() == 1:
            return net
        exact = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32, cast_forward_inputs=False)
        setup = DistributedSetup.build(
            FSDP2Config(reshard_after_forward=not self._keeps_gathered, mp_policy=exact),
            parallelism_sizes=ParallelismSizes(ep_size=self._parallel.expert),
            activation_checkpointing=self._parallel.checkpoint_activations,
        )
        self._mesh = setup.mesh_context.device_mesh
        return parallelize_model(net, setup.mesh_context)


def three_steps(checkpoint: Path, parallel: Parallel) -> dict[str, Any]:
    policy = Split(checkpoint, OPTIMIZER, "cpu", parallel=parallel)
    found: dict[str, Any] = {"before": policy.score(sequences()).log_probs}
    reports = [policy.step(sequences(), objective, 0.01) for _ in range(3)]
    found["losses"], found["norms"] = [r.loss for r in reports], [r.gradient_norm for r in reports]
    found["load"] = reports[0].expert_load
    whole = policy.model
    found["after"] = policy.score(sequences()).log_probs
    policy.step(sequences(), objective, 0.01)
    assert policy.model is whole
    with torch.no_grad():
        found["whole"] = whole(torch.tensor([[3, 4, 5, 6]])).logits
    saved = checkpoint.parent / f"saved.{parallel.expert}.{parallel.keep_gathered}.{parallel.checkpoint_activations}"
    policy.save(saved)
    found["saved"] = saved
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.process_group():
        folder, found = Path(sys.argv[1]), {}
        for given in sys.argv[2:]:
            expert, keep = given.split(":")
            again = keep == "again"  # Activations are computed again.
            parallel = Parallel(expert=int(expert), keep_gathered=keep != "layer", checkpoint_activations=again)
            found[given] = three_steps(folder / "model", parallel)
        if distributed.is_main():
            torch.save(found, folder / f"found.{distributed.size()}.pt")
