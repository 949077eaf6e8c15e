"""Writing a model that is sharded over processes as one Hugging Face directory.

The configuration, and the dtype of each stored weight, are those of the checkpoint that the model was loaded from.
"""

import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
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
SHARD_BYTES = 5 * 10**9
"""Size of a file at most, unless one weight is larger."""
SMALL_BYTES = 10**8
"""Files are not made smaller than this so that every process has some to write."""
WRITERS = 4
"""Files that a process writes at a time: one thread does not reach what memory or a file system takes."""
GATHERED_BYTES = 2**28
"""Size of the weights that are gathered at a time, unless one is larger."""
CONFIGURATION = ("config.json", "generation_config.json")


def save_consolidated(
    net: nn.Module,
    masters: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    source: Path,
    directory: Path,
    weights: dict[str, Tensor],
) -> None:
    """Write `net` to `directory` atomically. All processes must call it, and see the same `directory`.

    masters: float32 weights of this process's parts, by name, in place of the model's rounded ones.
    source: the checkpoint that the model was loaded from.
    weights: what this process wrote at an earlier call, empty at the first: memory to fill anew, since getting new
        memory takes far longer than the copy.
    Each process writes some of the files, and holds their weights in its host's memory; rank 0 all, if the class is
    transformers'. Where one cannot write, it raises its error and the others CascadeError; nothing is published.
    """
    values = list(_stored(net, masters))
    parts = _parts(net, values, source)
    empty = {key: part for of in parts.values() for key, part in of.items()}
    plan = None if isinstance(net, PreTrainedModel) else _plan(empty)
    files = _own_files(plan, empty) if plan else {}
    own = {key for keys in files.values() for key in keys}
    if plan is None and distributed.is_main():
        own = set(empty)
    for name, whole in whole_tensors((name, value.to(_narrower(value, parts[name]))) for name, value in values):
        if own.isdisjoint(parts[name]):
            continue
        for key, part in _released_names(net, name, whole):
            if key in own:
                if key not in weights:
                    weights[key] = torch.empty(part.shape, dtype=empty[key].dtype)
                weights[key].copy_(part)
    with _beside(directory) as temporary:

        def write(file: str) -> None:
            save_file({key: weights[key] for key in files[file]}, temporary / file, {"format": "pt"})

        with distributed.together():
            with ThreadPoolExecutor(WRITERS) as writers:
                list(writers.map(write, files))
            if distributed.is_main():
                if isinstance(net, PreTrainedModel):
                    net.save_pretrained(temporary, state_dict=weights)
                if plan and plan.is_sharded:
                    write_json(temporary / INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
                save_tokenizer(tokenizer, temporary)
                for name in CONFIGURATION:
                    if (source / name).exists():
                        shutil.copyfile(source / name, temporary / name)
        with distributed.together():
            if distributed.is_main():
                publish_directory(temporary, directory)


def stored_narrower(net: nn.Module, source: Path) -> dict[str, torch.dtype]:
    """Name → dtype in the checkpoint, for parameters that the model holds in a wider dtype. NeMo keeps some of Mamba's
    in float32 for all checkpoints."""
    wide = [(n.replace(WRAPPER, ""), p) for n, p in net.named_parameters() if p.dtype != torch.bfloat16]
    parts = _parts(net, wide, source)
    return {name: dtype for name, p in wide if (dtype := _narrower(p, parts[name])) != p.dtype}


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
    """Every weight and buffer of the state dict, tied ones once; those that have master weights in float32."""
    tied = getattr(net, "all_tied_weights_keys", None) or {}
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor) or name in tied:
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


def _parts(net: nn.Module, values: Iterable[tuple[str, Tensor]], source: Path) -> dict[str, dict[str, Tensor]]:
    """Name of a weight → the tensors that the checkpoint has of it: on the meta device, in the dtypes there."""
    types = stored_types(source)
    # transformers maps names in memory to names in files; all of its types are equal.
    usual = usual_type(types) if isinstance(net, PreTrainedModel) else None
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in values:
        found[name] = {}
        for key, part in _released_names(net, name, torch.empty(value.shape, dtype=value.dtype, device="meta")):
            dtype = types.get(key, part.dtype) if usual is None else usual if part.is_floating_point() else part.dtype
            # Not `part.to`: its storage may be the whole weight's, and sizes are those of storages.
            found[name][key] = torch.empty(part.shape, dtype=dtype, device="meta")
    return found


def _narrower(value: Tensor, parts: dict[str, Tensor]) -> torch.dtype:
    """The dtype in which all `parts` of a weight are stored, if it is narrower than the weight's; else the weight's."""
    dtypes = {part.dtype for part in parts.values()}
    if len(dtypes) == 1 and (dtype := dtypes.pop()).itemsize < value.dtype.itemsize:
        return dtype
    return value.dtype


def _plan(tensors: dict[str, Tensor]) -> StateDictSplit:
    """Which file has which tensors. As many files for each writer, of about the same size, except for small models."""
    total, writers = sum(tensor.nbytes for tensor in tensors.values()), distributed.size() * WRITERS
    files = writers * math.ceil(total / (writers * SHARD_BYTES))
    size = max(SMALL_BYTES, math.ceil(total / files))
    return split_torch_state_dict_into_shards(tensors, max_shard_size=min(SHARD_BYTES, size))


def _own_files(plan: StateDictSplit, tensors: dict[str, Tensor]) -> dict[str, list[str]]:
    """The files that this process writes, with what is in them. The largest first, each goes to the process with the
    fewest bytes so far."""
    sizes = {file: sum(tensors[key].nbytes for key in keys) for file, keys in plan.filename_to_tensors.items()}
    own: dict[str, list[str]] = {}
    loads = [0] * distributed.size()
    for file in sorted(sizes, key=sizes.__getitem__, reverse=True):
        process = loads.index(min(loads))
        loads[process] += sizes[file]
        if process == distributed.rank():
            own[file] = plan.filename_to_tensors[file]
    return own


@contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    """A temporary directory in `directory`'s parent, one for all processes; the main process removes it."""
    with ExitStack() as stack:

        def make() -> Path:
            directory.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.")
            temporary = Path(stack.enter_context(scratch)) / "checkpoint"
            temporary.mkdir()
            return temporary

        yield distributed.broadcast_from_main(make)
