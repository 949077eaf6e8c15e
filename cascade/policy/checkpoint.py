"""Checkpoints: Hugging Face directories that transformers, vLLM and NeMo Automodel can read."""

import json
import logging
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cascade.errors import CheckpointError
from cascade.policy.quantization.fake import FakeQuantized
from cascade.policy.quantization.store import is_quantized, quantize_files, read_quantized
from cascade.utils.files import publish_directory, read_json, write_json


def load_checkpoint(
    directory: Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal LM, its parameters in `dtype`, and its tokenizer. Only local safetensors are read. Quantised weights
    become the values that they stand for.

    Raises CheckpointError, in one line, for a directory that is missing, incomplete or not a causal LM.
    """
    directory = Path(directory)
    check_files(directory)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        if getattr(config, "quantization_config", "") is None:
            del config.quantization_config  # transformers would look into it.
        # transformers' warning of missing kernels does not apply: NemotronH does not run through transformers here.
        logging.getLogger("transformers").setLevel(logging.ERROR)
        loaded: Any = (
            _load_quantized(directory, config, dtype)
            if is_quantized(directory)
            else AutoModelForCausalLM.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        )
        model, report = loaded
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{directory}: cannot be loaded as a causal language model ({_line(error)})") from None
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(problem):
            names = ", ".join(sorted(str(name) for name in report[problem])[:3])
            raise CheckpointError(f"{directory}: weights do not fit config.json ({problem.replace('_', ' ')}: {names})")
    set_time_step_limit(model)
    return model, load_tokenizer(directory, model.get_input_embeddings().num_embeddings)


def _load_quantized(directory: Path, config: Any, dtype: torch.dtype) -> Any:
    """The model and transformers' report. transformers itself would need a library for each way of quantising, and
    replace the layers that this project's forward passes read."""
    weights = read_quantized(directory)
    del config.quantization_config
    with torch.device("meta"):
        kind: Any = type(AutoModelForCausalLM.from_config(config))
    model, report = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True)
    if (directory / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(directory, local_files_only=True)
    return model, report


def time_step_limit(config: Any) -> tuple[float, float] | None:
    """Smallest and largest time step of a model's Mamba-2 layers; None without such layers or limit."""
    limit = getattr(config, "time_step_limit", None)
    return None if limit is None else (float(limit[0]), float(limit[1]))


def set_time_step_limit(model: Any) -> None:
    """Clamp the time step of Mamba-2 layers to `time_step_limit`, as the released models' own code and NeMo Automodel
    do. transformers' NemotronH uses `time_step_min` as lower bound, which is meant for initialisation only."""
    limit = time_step_limit(model.config)
    for module in model.modules() if limit else ():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = limit


def check_files(directory: Path) -> None:
    """Raises CheckpointError if the configuration or the weights are missing."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such checkpoint directory; build it first (`dvc repro`) or mend `init`")
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory}: no config.json; not a Hugging Face checkpoint")
    if not any(directory.glob("*.safetensors")):
        raise CheckpointError(f"{directory}: no *.safetensors weights; save the model with save_pretrained")


def load_tokenizer(directory: Path, embedded: int) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises CheckpointError if there is none, or it has more tokens than the model's embeddings."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{directory}: no usable tokenizer ({_line(error)})") from None
    if len(tokenizer) > embedded:
        raise CheckpointError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens, the model embeds {embedded}; "
            "they do not belong together"
        )
    return tokenizer


_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def stored_types(directory: Path) -> dict[str, torch.dtype]:
    """Name → type of every floating-point tensor in the *.safetensors files of a checkpoint."""
    found: dict[str, torch.dtype] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        found |= {name: _TYPES[info["dtype"]] for name, info in header.items() if info.get("dtype") in _TYPES}
    return found


def usual_type(types: dict[str, torch.dtype]) -> torch.dtype:
    """The type of most tensors."""
    return max(sorted(set(types.values()), key=str), key=list(types.values()).count)


@torch.no_grad()
def round_weights(model: PreTrainedModel, types: dict[str, torch.dtype]) -> dict[str, Tensor]:
    """Round the model's weights in place to the types of a checkpoint (`stored_types`), as far as they are narrower.
    Returns the state dict in these types; tied weights are one tensor in it.

    A weight is found by its name without the first part, which transformers renames for some models; one that is not
    found, as experts that transformers joins, has the type of most.
    """
    usual, by_tail = usual_type(types), {name.partition(".")[2]: dtype for name, dtype in types.items()}
    stored: dict[int, Tensor] = {}
    state = model.state_dict()
    for name, value in state.items():
        dtype = by_tail.get(name.partition(".")[2], usual)
        if value.is_floating_point() and dtype.itemsize < value.dtype.itemsize:
            if value.data_ptr() not in stored:
                stored[value.data_ptr()] = value.to(dtype)
                value.copy_(stored[value.data_ptr()])
            state[name] = stored[value.data_ptr()]
    return state


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    types: dict[str, torch.dtype] | None = None,
    quantized: FakeQuantized | None = None,
) -> None:
    """Write the directory atomically. Equal weights give equal bytes. `types`: those of the checkpoint that the model
    was loaded from, to store it in them; the model is rounded accordingly. `quantized`: store its weights in few
    bits."""
    narrow = types and any(dtype.itemsize < model.dtype.itemsize for dtype in types.values())
    state = round_weights(model, types) if types and narrow else None
    if quantized is not None:
        full = {name: weight.detach() for name, weight in quantized.weights.items()}
        state = {**(state or model.state_dict()), **full}
        quantized.refresh()  # Rounding is for the other weights.
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        temporary = Path(scratch) / "checkpoint"
        model.save_pretrained(temporary, state_dict=state)
        save_tokenizer(tokenizer, temporary)
        config = read_json(temporary / "config.json")
        if types and narrow:
            config["dtype"] = str(usual_type(types)).removeprefix("torch.")
            write_json(temporary / "config.json", dict(sorted(config.items())))
        if config.get("model_type") == "nemotron_h":
            # vLLM and NeMo Automodel read the layers from the pattern, transformers from the list.
            config["hybrid_override_pattern"] = model.config.hybrid_override_pattern
            config["num_hidden_layers"] = model.config.num_hidden_layers
            write_json(temporary / "config.json", dict(sorted(config.items())))
        if quantized is not None:
            quantize_files(temporary, full, quantized.form)
        publish_directory(temporary, directory)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    tokenizer.save_pretrained(directory)
    # Leave out how this copy was loaded, which transformers adds.
    settings = read_json(directory / "tokenizer_config.json")
    portable = {key: value for key, value in settings.items() if key not in ("is_local", "local_files_only")}
    write_json(directory / "tokenizer_config.json", portable)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


transformers.utils.logging.disable_progress_bar()
