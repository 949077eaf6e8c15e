"""A small model, split over the processes and written as one directory by all of them, and states of which each process
has a part: exporting.py FOLDER"""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from cascade.errors import CascadeError
from cascade.policy import consolidate
from cascade.policy.master_weights import local
from cascade.training import resume_state
from cascade.training.resume_state import State, load_state, save_state
from cascade.utils import distributed
from tests.policy import tiny

SHARD_BYTES = 500
CASES = ("plain", "adapter")
VALUES = {
    "embeddings": ((40, 8), Shard(0)),
    "A_log": ((5,), Shard(0)),
    "columns": ((6, 7), Shard(1)),
    "ups": ((3, 4, 6), Shard(0)),
    "downs": ((3, 6, 4), Shard(1)),
    "new": ((2, 2), Shard(0)),
    "narrow": ((9,), Replicate()),
    "frozen": ((3, 5), Shard(0)),
    "head": ((40, 8), Shard(0)),
}
FROZEN = "frozen"
"""The one that has no master weights."""
DTYPES = {"A_log": torch.float32, "narrow": torch.float16, "frozen": torch.float32}
"""In the source, others being bfloat16; it has no `new`."""
UNEVEN = {"ups": torch.bfloat16, "downs": torch.float32}
"""Of the first expert, by name; of the other experts bfloat16."""


class Adapter:
    """Names as NeMo's: experts are stacked and transposed in memory, one by one in files."""

    def convert_single_tensor_to_hf(self, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
        if name in UNEVEN:
            return [(f"experts.{number}.{name}", part.T) for number, part in enumerate(value)]
        return [(f"backbone.{name}", value)]


def whole_values() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=draw) for name, (shape, _) in VALUES.items()}


def expected(case: str) -> dict[str, Tensor]:
    """What the files must have, in their dtypes."""
    found = {}
    for name, value in whole_values().items():
        value = value.bfloat16() if name == FROZEN else value
        dtype = DTYPES.get(name, torch.bfloat16)
        if case == "plain":
            found[name] = value if name == "new" else value.to(dtype)
        elif name in UNEVEN:
            for number, part in enumerate(value):
                found[f"experts.{number}.{name}"] = part.T.to(UNEVEN[name] if number == 0 else dtype).contiguous()
        else:
            found[f"backbone.{name}"] = value if name == "new" else value.to(dtype)
    return found


def make_source(folder: Path, case: str) -> Path:
    source = folder / f"source-{case}"
    source.mkdir(exist_ok=True)
    stored = {name: torch.zeros_like(value) for name, value in expected(case).items() if not name.endswith("new")}
    save_file(stored, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    return source


def make_net(case: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Weights in bfloat16 and the float32 ones of this process's parts."""
    net, values = nn.Module(), whole_values()
    if distributed.size() > 1:
        mesh = init_device_mesh("cpu", (distributed.size(),))
        values = {name: distribute_tensor(value, mesh, [VALUES[name][1]]) for name, value in values.items()}
    for name, value in values.items():
        net.register_parameter(name, nn.Parameter(value.bfloat16()))
    net.register_buffer("steps" if case == "plain" else "count", torch.tensor([3, 4]))
    if case == "adapter":
        net.state_dict_adapter = Adapter()
    return net, {name: local(value) for name, value in values.items() if name != FROZEN}


def export(case: str, source: Path, directory: Path) -> dict:
    """Writes it. The files that this process wrote, and the dtypes in which weights were gathered."""
    files: list[str] = []
    dtypes: dict[str, torch.dtype] = {}
    write, gather = consolidate.save_file, consolidate.whole_tensors

    def writing(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        files.append(path.name)
        write(tensors, path, metadata)

    def gathering(values: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, value in gather(values):
            dtypes[name] = value.dtype
            yield name, value

    consolidate.save_file, consolidate.whole_tensors = writing, gathering
    try:
        net, masters = make_net(case)
        consolidate.save_consolidated(net, masters, tiny.tokenizer(), source, directory, {})
    finally:
        consolidate.save_file, consolidate.whole_tensors = write, gather
    return {"files": files, "dtypes": dtypes}


def failing(case: str, source: Path, directory: Path, rank: int) -> str:
    """What this process raises where `rank` has no room for its files."""
    write = consolidate.save_file

    def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if distributed.rank() == rank:
            raise OSError(28, "No space left on device")
        write(tensors, path, metadata)

    consolidate.save_file = full
    try:
        net, masters = make_net(case)
        consolidate.save_consolidated(net, masters, tiny.tokenizer(), source, directory, {})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        consolidate.save_file = write
    return ""


def state_of(step: int) -> State:
    return State(step, {"order": step}, {"weights": torch.full((3,), 10.0 * step + distributed.rank())})


def states(path: Path) -> dict:
    """One is written, each process's part only while the other's is; of a second, once each, a process has no room."""
    write = resume_state.save_file

    def waiting(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        write(tensors, file, metadata)
        end = time.monotonic() + 60
        while len(list(path.parent.iterdir())) < distributed.size():
            if time.monotonic() > end:
                raise OSError("the other process does not write")
            time.sleep(0.01)

    def full(rank: int, tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        if distributed.rank() == rank:
            raise OSError(28, "No space left on device")
        write(tensors, file, metadata)

    found: dict = {"said": []}
    try:
        resume_state.save_file = waiting
        save_state(path, state_of(1), {}, sharded=True)
        for rank in range(distributed.size()):
            resume_state.save_file = partial(full, rank)
            try:
                save_state(path, state_of(2), {}, sharded=True)
            except CascadeError as error:
                found["said"].append(str(error))
            distributed.barrier()
            found[f"after {rank}"] = load_state(path, {}, sharded=True)[0]
    finally:
        resume_state.save_file = write
    save_state(path, state_of(3), {}, sharded=True)
    return {**found, "last": load_state(path, {}, sharded=True)[0]}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    consolidate.SHARD_BYTES, consolidate.GATHERED_BYTES = SHARD_BYTES, 300
    found: dict = {
        case: distributed.gather(export(case, folder / f"source-{case}", folder / f"two-{case}")) for case in CASES
    }
    for rank in range(distributed.size()):
        said = failing("adapter", folder / "source-adapter", folder / "failed" / "model", rank)
        found[f"failing {rank}"] = distributed.gather(said)
        found[f"left {rank}"] = sorted(path.name for path in (folder / "failed").rglob("*"))
        distributed.barrier()
    consolidate.SHARD_BYTES = 10**9
    found["small"] = distributed.gather(export("plain", folder / "source-plain", folder / "small"))
    found["states"] = distributed.gather(states(folder / "states" / "state.safetensors"))
    if distributed.is_main():
        torch.save(found, folder / "found.pt")


if __name__ == "__main__":
    with distributed.process_group():
        main(Path(sys.argv[1]))
