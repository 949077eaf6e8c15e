"""The resumable state of a node: one safetensors file, replaced in one atomic step.

Tensors are the policy's weights and optimizer state; the metadata holds the step, what else the loop needs to
continue, and the fingerprint of the inputs. All of it is of one moment, or the file is not there.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.errors import CheckpointError

_KEY = "cascade"


@dataclass(frozen=True)
class State:
    step: int
    """Steps done."""
    progress: dict[str, Any]
    """What the loop needs besides the step, as JSON."""
    tensors: dict[str, Tensor]


def fingerprint(inputs: dict[str, Any]) -> str:
    """SHA-256 over everything the result depends on, hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def save_state(path: Path, state: State, inputs: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    metadata = {"step": state.step, "progress": state.progress, "inputs": inputs}
    save_file(state.tensors, aside, {_KEY: json.dumps(metadata)})
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)


def load_state(path: Path, inputs: dict[str, Any]) -> tuple[State | None, str]:
    """The saved state, or None and why it is of no use here ("" where there is none).

    A state made from other inputs must not be continued: it would mix two runs in one checkpoint.
    Raises CheckpointError when the file is not such a state.
    """
    if not path.exists():
        return None, ""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()[_KEY])
            saved = metadata["inputs"]
            changed = sorted(key for key in inputs.keys() | saved.keys() if saved.get(key) != inputs.get(key))
            if changed:
                return None, f"the state at step {metadata['step']} was made from another {', '.join(changed)}"
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a resumable state ({error}); delete it to start the node anew") from None
    return State(metadata["step"], metadata["progress"], tensors), ""
