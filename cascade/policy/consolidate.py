"""Writing a model that is sharded over processes as one Hugging Face directory.

The configuration, and the dtype of each stored weight, are those of the checkpoint that the model was loaded from.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cascade.errors import CheckpointError
from cascade.policy.checkpoint import save_tokenizer, stored_types, usual_type
from cascade.policy.master_weights import WRAPPER
from cascade.utils import distributed
from cascade.utils.files import publish_directory, write_json

INDEX = "model.safetensors.index.json"
SHARD_BYTES = "5GB"
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
    for name, value in _whole(net, masters):
        if distributed.is_main():
            for key, tensor in _released_names(net, name, value):
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
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        whole = value.full_tensor() if isinstance(value, DTensor) else value
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


def _whole(net: nn.Module, masters: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every weight and buffer of the state dict, gathered from its shards, on the CPU of rank 0."""
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
        if isinstance(whole, DTensor):
            whole = whole.full_tensor()
        yield name, whole.cpu() if distributed.is_main() else whole


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
