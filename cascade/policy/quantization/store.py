"""A quantised checkpoint: a Hugging Face directory whose weights are in few bits, in compressed-tensors' layout.

`config.json` has a `quantization_config`, which vLLM reads, and transformers where compressed-tensors is installed. A
quantised matrix W has its codes in `W.weight` or `W.weight_packed`, their scales in `W.weight_scale`, and for NVFP4
`W.weight_global_scale`. Experts are stored one by one, as in every checkpoint. All else is stored as in the checkpoint
that was quantised.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascade.errors import CheckpointError
from cascade.policy.quantization.fake import shared_largest
from cascade.policy.quantization.formats import Format, config_group, dequantize, format_of, pack, quantize, unpack
from cascade.utils.files import read_json, write_json

METHOD = "compressed-tensors"
PARTS = ("weight", "weight_packed", "weight_scale", "weight_global_scale", "weight_shape")
INDEX = "model.safetensors.index.json"


def is_quantized(directory: Path) -> bool:
    """Whether a checkpoint's weights are quantised, in whatever way."""
    path = directory / "config.json"
    return path.is_file() and read_json(path).get("quantization_config") is not None


def stored_format(directory: Path) -> Format | None:
    """The format of a checkpoint's weights; None where they are not quantised, or in a way that is not read here."""
    if not is_quantized(directory):
        return None
    settings = read_json(directory / "config.json")["quantization_config"]
    groups = settings.get("config_groups") or {}
    if settings.get("quant_method") != METHOD or len(groups) != 1:
        return None
    return format_of(next(iter(groups.values())))


def quantize_files(directory: Path, names: Mapping[str, Tensor], form: Format) -> None:
    """Quantise a checkpoint's files in place: the matrices of these weights of the model, by name. The files have their
    full weights.

    Raises CheckpointError where the files do not have all of them.
    """
    files = sorted(directory.glob("*.safetensors"))
    keys: dict[str, Path] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            keys |= dict.fromkeys(file.keys(), path)
    wanted = {part for name in names for part in in_files(name)}
    chosen = [key for key in keys if key.endswith(".weight") and without_number(key) in wanted]
    largest: dict[str, Tensor] = {}
    if form.nested:
        largest = shared_largest(
            {key: tensor for path in files for key, tensor in load_file(path).items() if key in chosen}
        )
    done = 0
    places: dict[str, str] = {}
    for path in files:
        tensors = load_file(path)
        for key in [key for key in tensors if key in chosen]:
            weight = tensors.pop(key)
            done += weight.numel()
            stored = pack(quantize(weight, form, largest.get(key)), form)
            tensors |= {f"{key.removesuffix('weight')}{part}": t.contiguous().clone() for part, t in stored.items()}
        save_file(tensors, path, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, path.name)
    if done != sum(weight.numel() for weight in names.values()):
        raise CheckpointError(
            f"{directory}: its files name the weights otherwise than the model, so not all of them can be quantised"
        )
    if (index := directory / INDEX).exists():
        size = sum(path.stat().st_size for path in files)
        write_json(index, {"metadata": {"total_size": size}, "weight_map": places})
    config = read_json(directory / "config.json")
    kept = [key for key in keys if key.endswith(".weight") and key not in chosen and "embed" not in key]
    config["quantization_config"] = {
        "quant_method": METHOD,
        "format": form.storage,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {**config_group(form), "format": form.storage}},
        "ignore": sorted(key.removesuffix(".weight") for key in kept if _is_matrix(keys[key], key)),
        "kv_cache_scheme": None,
    }
    write_json(directory / "config.json", dict(sorted(config.items())))


def without_number(key: str) -> str:
    """What a weight's name in a file has in common with its name in the model: no first part, which transformers
    renames for some models, and no expert's number."""
    path = key.removesuffix(".weight")
    return re.sub(r"\.experts\.\d+\.", ".experts.", path.partition(".")[2] or path)


def in_files(name: str) -> list[str]:
    """The names in files, as `without_number` has them, of a weight of the model. Gate and up of stacked experts are
    one there."""
    path = without_number(name)
    if path.endswith(".experts.gate_up_proj"):
        return [path.replace("gate_up_proj", part) for part in ("gate_proj", "up_proj")]
    return [path]


def read_quantized(directory: Path) -> dict[str, Tensor]:
    """Name in the files → tensor, the quantised matrices as float32.

    Raises CheckpointError where the format is another, or a part of a matrix is missing or does not fit.
    """
    form = stored_format(directory)
    if form is None:
        settings = read_json(directory / "config.json")["quantization_config"]
        raise CheckpointError(
            f"{directory}: quantised in a way that is not read here ({settings.get('quant_method')}, "
            f"{settings.get('format')}); give the checkpoint that it was quantised from"
        )
    tensors: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(path)
    matrices = {name.rpartition(".")[0] for name in tensors if name.endswith((".weight_scale", ".weight_packed"))}
    if form.storage == "float-quantized":
        matrices |= {n.rpartition(".")[0] for n, t in tensors.items() if t.dtype == torch.float8_e4m3fn}
    for matrix in sorted(matrices):
        stored = {part: tensors.pop(f"{matrix}.{part}") for part in PARTS if f"{matrix}.{part}" in tensors}
        try:
            tensors[f"{matrix}.weight"] = dequantize(unpack(stored, form))
        except ValueError as error:
            raise CheckpointError(
                f"{directory}: {matrix}: {error}; its files do not have the format that config.json says"
            ) from None
    return tensors


def _is_matrix(path: Path, key: str) -> bool:
    with safe_open(path, "pt") as file:
        return len(file.get_slice(key).get_shape()) == 2
