"""What the tests run in every process of a group: worker.py FOLDER ENGINE/CHECKPOINT …"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from cascade.policy import consolidate, gradient_buckets
from cascade.policy.base import Sequence
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.policy.nemo import NemoPolicy
from cascade.recipe import Optimizer
from cascade.training.resume_state import State, load_state, save_state
from cascade.utils import distributed

consolidate.GATHERED_BYTES = 100
gradient_buckets.BUCKET_BYTES = 8192  # Of models as small as these, several.
OPTIMIZER = Optimizer(learning_rate=0.01, micro_batch_tokens=48)


class ShardedOnCPU(NemoPolicy):
    """All of the engine but NeMo: a transformers model, split over the processes by FSDP2 over gloo."""

    def _load(self) -> nn.Module:
        model, _ = load_checkpoint(self._source)
        mesh = init_device_mesh("cpu", (distributed.size(),))
        for layer in model.base_model.layers:
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)


ENGINES = {
    "hf": lambda checkpoint, optimizer: HFPolicy(checkpoint, optimizer),
    "sharded": lambda checkpoint, optimizer: ShardedOnCPU(checkpoint, optimizer, "cpu"),
}


def sequences() -> list[Sequence]:
    """Seven of unlike lengths, two of them with a common prompt, one packed."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for length in (5, 30, 11, 24, 17, 9):
        ids = torch.randint(3, 300, (length,), generator=draw).tolist()
        found.append(Sequence(ids, [i >= length // 3 for i in range(length)]))
    found.append(Sequence([*found[1].token_ids[:20], 7, 8, 9], [*found[1].trained[:20], True, True, True]))
    marks = found[0].trained + found[2].trained
    found.append(Sequence(found[0].token_ids + found[2].token_ids, marks, (5, 11)))
    return found


def objective(log_probs: Tensor, index: Tensor) -> Tensor:
    """One that needs to know which tokens it is given."""
    return -(log_probs * (1 + index.to(log_probs) / 10)).sum() / 80


def gradients(policy: HFPolicy) -> dict[str, Tensor]:
    """Of the step just done, clipped, whole."""
    if not isinstance(policy, NemoPolicy):
        return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    masters = policy._masters
    return {n: whole_gradient(w, masters.parameters[n]) for n, w in masters.weights.items()}


def train(policy: HFPolicy, steps: int) -> list[dict]:
    found = []
    for _ in range(steps):
        report = policy.step(sequences(), objective, 0.01)
        found.append({"report": report, "gradients": gradients(policy)})
        policy._optimizer.zero_grad(set_to_none=True)
    return found


def whole_gradient(weight: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return weight.grad
    spec = {"shape": like.shape, "stride": like.stride()}
    return DTensor.from_local(weight.grad, like.device_mesh, like.placements, **spec).full_tensor()


def three_steps(engine: str, folder: Path) -> dict:
    """Three steps; a save after the second, from which another policy does the third again; then a checkpoint."""
    make = ENGINES[engine]
    policy = make(folder / "checkpoint", OPTIMIZER)
    before = policy.score(sequences()).log_probs
    steps = train(policy, 2)
    state = folder / engine / str(distributed.size()) / "state.safetensors"
    if distributed.is_main() or policy.sharded:
        save_state(state, State(2, {}, policy.training_state()), {}, policy.sharded)
    distributed.barrier()
    steps += train(policy, 1)
    saved = state.parent / "saved"
    if distributed.is_main() or policy.sharded:
        policy.save(saved)
    resumed = make(folder / "checkpoint", OPTIMIZER)
    resumed.load_training_state(load_state(state, {}, policy.sharded)[0].tensors)
    found = {"before": before, "steps": steps, "again": train(resumed, 1)[0], "saved": saved}
    found["after"] = policy.score(sequences()).log_probs
    found["parts"] = sorted(path.name for path in state.parent.glob("state*"))
    if isinstance(policy, NemoPolicy):
        with torch.no_grad():
            found["whole"] = policy.model(torch.tensor([[3, 4, 5, 6]])).logits
    return found


LAYOUTS = {
    "uneven": ((5, 3), torch.float32, Shard(0)),
    "one row": ((1, 2, 2), torch.float32, Shard(0)),
    "bfloat16": ((4, 3), torch.bfloat16, Shard(0)),
    "columns": ((2, 7), torch.float32, Shard(1)),
    "copies": ((3,), torch.float32, Replicate()),
    "rows only": ((7,), torch.float32, Shard(0)),
}


def whole() -> dict[str, tuple[Tensor, Tensor]]:
    """By name: what the processes gather of a tensor that they hold in parts, and the tensor."""
    mesh = init_device_mesh("cpu", (distributed.size(),))
    values = {
        name: torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape).to(dtype)
        for name, (shape, dtype, _) in LAYOUTS.items()
    }
    parts: dict[str, Tensor] = {
        name: distribute_tensor(value, mesh, [LAYOUTS[name][2]]) for name, value in values.items()
    }
    values["plain"] = parts["plain"] = torch.ones(2)
    return {name: (found, values[name]) for name, found in consolidate.whole_tensors(parts.items())}


def main(folder: Path, checks: list[str]) -> None:
    torch.set_num_threads(1)
    found = {"whole": whole()} if distributed.size() > 1 else {}
    for check in checks:
        engine, kind = check.split("/")
        found[check] = three_steps(engine, folder / kind)
    if distributed.is_main():
        torch.save(found, folder / f"found.{distributed.size()}.pt")


if __name__ == "__main__":
    with distributed.process_group():
        main(Path(sys.argv[1]), sys.argv[2:])
