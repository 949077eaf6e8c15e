"""Writing a model that is sharded over processes as one Hugging Face directory.

The configuration, and the dtype of each stored weight, are those of the checkpoint that the model was loaded from.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cascade.errors import CheckpointError
from cascade.policy.checkpoint import save_tokenizer, stored_types, usual_type
from cascade.policy.master_weights import WRAPPER, local
from cascade.utils import distributed
from cascade.utils.files import publish_directory, write_json

INDEX = "model.safetensors.index.json"
SHARD_BYTES = "5GB"
GATHERED_BYTES = 2**28
"""Size of the weights that are gathered at a time, unless one is larger."""
CONFIGURATION = ("config.json", "generation_config.json")


def save_consolidated(
    net: nn.Module, masters: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, source: Path, directory: Path
) -> None:
    """Write `net` to `directory` atomically. All processes must call it; rank 0 writes.

    masters: float32 weights of this process's parts, by name, in place of the model's rounded ones.
    source: the checkpoint that the model was loaded from. Rank 0 holds all weights in its host's memory.
    """
    weights: dict[str, Tensor] = {}
    types = stored_types(source)
    for name, value in whole_tensors(_stored(net, masters)):
        if distributed.is_main():
            for key, tensor in _released_names(net, name, value.cpu()):
                weights[key] = tensor
    if distributed.is_main():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
            temporary = Path(scratch) / "checkpoint"
            temporary.mkdir()
            _write_weights(net, weights, types, temporary)
            save_tokenizer(tokenizer, temporary)
            for name in CONFIGURATION:
                if (source / name).exists():
                    shutil.copyfile(source / name, temporary / name)
            temporary.chmod(0o755)
            publish_directory(temporary, directory)
    distributed.barrier()


def stored_narrower(net: nn.Module, source: Path) -> dict[str, torch.dtype]:
    """Name → dtype in the checkpoint, for parameters that the model holds in a wider dtype. NeMo keeps some of Mamba's
    in float32 for all checkpoints."""
    types = stored_types(source)
    usual = usual_type(types)
    found = {}
    for name, parameter in net.named_parameters():
        name = name.replace(WRAPPER, "")
        if parameter.dtype == torch.bfloat16:
            continue
        if isinstance(net, PreTrainedModel):
            stored = usual  # The dtype in which `_write_weights` stores them.
        else:
            (key, _), *_ = _released_names(net, name, torch.empty(parameter.shape, device="meta"))
            stored = types.get(key, parameter.dtype)
        if stored.itemsize < parameter.dtype.itemsize:
            found[name] = stored
    return found


@torch.no_grad()
def copy_whole(net: nn.Module, model: PreTrainedModel) -> None:
    """Overwrite the weights of `model`, a full copy on each process's device, with those of `net`, in place. All
    processes must call it. Raises CheckpointError if `model` lacks a weight of `net`, or the reverse."""
    targets = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    missing = set(targets)
    weights = ((n, w) for n, w in net.state_dict().items() if isinstance(w, Tensor) and w.is_floating_point())
    for name, whole in whole_tensors(weights):
        for place, part in _places(net, name, whole, targets):
            if place is None:
                raise CheckpointError(f"{name}: transformers' {type(model).__name__} has no such weight to sample with")
            key, index = place
            (targets[key] if index is None else targets[key][index]).copy_(part)
            missing.discard(key)
    for tied in missing & set(getattr(model, "all_tied_weights_keys", None) or ()):
        missing.discard(tied)
    if missing:
        raise CheckpointError(f"{min(missing)}: engine nemo's model has no such weight to sample with")


def whole_tensors(values: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The values, unsharded and in order, on every process. All processes must iterate over all of them.

    Shards are gathered GATHERED_BYTES at a time: for most weights a collective of its own would take longer than the
    transfer.
    """
    bunch: list[tuple[str, Tensor]] = []
    size = 0
    for name, value in values:
        bunch.append((name, value))
        size += value.numel() * value.element_size()
        if size >= GATHERED_BYTES:
            yield from _gathered(bunch)
            bunch, size = [], 0
    yield from _gathered(bunch)


def _gathered(bunch: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    found = [local(value) for _, value in bunch]
    together: dict[tuple[dist.ProcessGroup, torch.dtype], list[int]] = {}
    for number, (_, value) in enumerate(bunch):
        if isinstance(value, DTensor):
            dimensions = [
                n for n, p in enumerate(value.placements) if value.device_mesh.size(n) > 1 and not p.is_replicate()
            ]
            # Strided and other shardings are subclasses.
            if len(dimensions) == 1 and type(place := value.placements[dimensions[0]]) is Shard and place.dim == 0:
                together.setdefault((value.device_mesh.get_group(dimensions[0]), value.dtype), []).append(number)
            elif dimensions:
                found[number] = value.full_tensor()
    for (group, _), numbers in together.items():
        processes = dist.get_world_size(group)
        parts = []
        for number in numbers:
            # The first processes have ceil(rows / processes) rows each, the last may have fewer or none.
            shape, flat = bunch[number][1].shape, found[number].flatten()
            parts.append(F.pad(flat, (0, -(-shape[0] // processes) * shape[1:].numel() - len(flat))))
        own = torch.cat(parts)
        every = own.new_empty(processes * len(own))
        dist.all_gather_into_tensor(every, own, group=group)
        split = every.view(processes, -1).split([len(part) for part in parts], 1)
        for number, part in zip(numbers, split, strict=True):
            shape = bunch[number][1].shape
            found[number] = part.reshape(-1, *shape[1:])[: shape[0]]
    return [(name, whole) for (name, _), whole in zip(bunch, found, strict=True)]


_Place = tuple[str, int | None]
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+)\.weight")
_MERGED = {"gate_and_up_projs": "up_proj", "down_projs": "down_proj"}
"""NeMo's names of the experts' stacked matrices → transformers' names; transformers' matrices are transposed."""


def _places(
    net: nn.Module, name: str, value: Tensor, targets: dict[str, Tensor]
) -> Iterator[tuple[_Place | None, Tensor]]:
    """The parts of a weight of `net`, each with its place in a transformers model."""
    if name in targets and targets[name].shape == value.shape:
        yield (name, None), value
        return
    head, _, tail = name.rpartition(".")
    merged = f"{head}.{_MERGED.get(tail, '')}"
    if merged in targets and targets[merged].shape == value.mT.shape:
        yield (merged, None), value.mT
        return
    for key, part in _released_names(net, name, value):
        key = re.sub("^backbone\\.", "model.", key)
        expert = _EXPERT.fullmatch(key)
        if key in targets:
            yield (key, None), part
        elif expert and f"{expert[1]}.{expert[3]}" in targets:
            yield (f"{expert[1]}.{expert[3]}", int(expert[2])), part
        else:
            yield None, part


def _stored(net: nn.Module, masters: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every weight and buffer of the state dict, those that have master weights in float32."""
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        whole = value.detach()
        if name in masters:
            whole = masters[name].detach()
            if isinstance(value, DTensor):
                whole = DTensor.from_local(
                    whole,
                    value.device_mesh,
                    value.placements,
                    run_check=False,
                    shape=value.shape,
                    stride=value.stride(),
                )
        yield name, whole


def _released_names(net: nn.Module, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """NeMo's own classes use different names and shapes; their adapter converts to those of the released files."""
    adapter = getattr(net, "state_dict_adapter", None)
    return [(name, value)] if adapter is None else adapter.convert_single_tensor_to_hf(name, value)


def _write_weights(net: nn.Module, weights: dict[str, Tensor], types: dict[str, torch.dtype], directory: Path) -> None:
    if isinstance(net, PreTrainedModel):
        # transformers maps names in memory to names in files; all of its types are equal.
        usual = usual_type(types)
        net.save_pretrained(
            directory, state_dict={n: w.to(usual) if w.is_floating_point() else w for n, w in weights.items()}
        )
        return
    weights = {name: weight.to(types.get(name, weight.dtype)).contiguous() for name, weight in weights.items()}
    plan = split_torch_state_dict_into_shards(weights, max_shard_size=SHARD_BYTES)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: weights[name] for name in names}, directory / file, {"format": "pt"})
    if plan.is_sharded:
        write_json(directory / INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
