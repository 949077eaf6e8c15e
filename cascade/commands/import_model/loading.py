"""A causal language model and its tokenizer from the Hub, a directory of safetensors, or a GGUF file."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cascade.errors import CascadeError, CheckpointError
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.quantization.store import is_quantized

FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md", "LICENSE*"]
"""Files of a repository on the Hub that make a checkpoint; weights in other formats are not loaded."""

TOKEN = "set HF_TOKEN or run `hf auth login`"


@dataclass
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    origin: str
    """Where it was read from, in words."""
    card: Path | None
    """The model's own README.md."""


def load(source: str, dtype: torch.dtype | None = None) -> Loaded:
    """`dtype`: of the weights; None keeps the source's own, float32 for a GGUF file, whose weights are quantized.

    Raises CascadeError for a source that cannot be found, CheckpointError for one that cannot be loaded.
    """
    path = Path(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        return _gguf(path, dtype or torch.float32)
    if path.is_dir():
        return _directory(path, dtype, str(path))
    if path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(f"{source}: neither a directory, a .gguf file, nor a name on the Hub (ORGANISATION/NAME)")
    return _directory(_download(source), dtype, f"{source} of the Hub")


def _directory(path: Path, dtype: torch.dtype | None, origin: str) -> Loaded:
    dtype = dtype or _own_dtype(path)
    model, tokenizer = load_checkpoint(path, dtype)
    if is_quantized(path):
        origin += f", dequantized to {str(dtype).removeprefix('torch.')}"
    card = path / "README.md"
    return Loaded(model, tokenizer, origin, card if card.is_file() else None)


def _own_dtype(path: Path) -> torch.dtype:
    """The type of the weights, as config.json names it."""
    try:
        named = getattr(AutoConfig.from_pretrained(path, local_files_only=True), "dtype", None)
    except Exception:
        return torch.float32  # What is wrong with the configuration, loading says in one line.
    named = getattr(torch, named, None) if isinstance(named, str) else named
    return named if isinstance(named, torch.dtype) and named.is_floating_point else torch.float32


def _download(name: str) -> Path:
    from httpx2 import TransportError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except GatedRepoError:
        raise CascadeError(f"{name}: gated; accept its terms on the Hub, then {TOKEN}") from None
    except RepositoryNotFoundError:
        raise CascadeError(f"{name}: not on the Hub, or private; mend the name, or {TOKEN}") from None
    except (HfHubHTTPError, TransportError, OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise CascadeError(f"{name}: cannot be downloaded from the Hub ({line[:200]})") from None


def _gguf(path: Path, dtype: torch.dtype) -> Loaded:
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise CascadeError(f"{path}: reading GGUF needs {' and '.join(missing)}; pip install 'cascade-posttrain[gguf]'")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: cannot be loaded as a causal language model ({line[:200]})") from None
    # transformers keeps the model bound to its quantized file, and refuses to save it: a plain one gets its weights.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    plain.load_state_dict(loaded.state_dict())
    config._name_or_path = ""
    return Loaded(plain.eval(), tokenizer, f"{path.name}, dequantized to {str(dtype).removeprefix('torch.')}", None)
