"""The resumable state of a node: one safetensors file, replaced in one atomic step.

Tensors are the policy's weights and optimizer state; the metadata holds the step, what else the loop needs to
continue, and the fingerprint of the inputs. All of it is of the same step. `node_run` saves and
restores it, and rewinds journal and samples to its step.

Where every process holds a shard of the policy, the other processes' tensors are in files beside it, named after step
and rank. All are written at the same time; the main process's gets its name last, and the others' earlier ones are
deleted after that, so the set is consistent too. It is resumed by as many processes as wrote it, with the same bytes as
a result.
"""

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.errors import CheckpointError
from cascade.utils import distributed
from cascade.utils.files import room_for

_KEY = "cascade"


@dataclass(frozen=True)
class State:
    step: int
    """Finished steps."""
    progress: dict[str, Any]
    """What the loop needs besides the step, as JSON."""
    tensors: dict[str, Tensor]


def save_state(path: Path, state: State, inputs: dict[str, Any], sharded: bool = False) -> None:
    """`sharded`: every process calls it, each with its own tensors; else only the main process.

    Raises CascadeError where the disk is full; the previous state stays. So it does where one of several processes
    cannot write: that raises its error, the others CascadeError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {_KEY: json.dumps({"step": state.step, "progress": state.progress, "inputs": inputs})}
    part = _part(path, state.step) if sharded else path
    temporary = part.with_suffix(".tmp")
    together = distributed.together if sharded else nullcontext
    try:
        with together(), room_for(part):
            save_file(state.tensors, temporary, metadata)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if part != path:
                os.replace(temporary, part)
        with together():
            if part == path:
                os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if sharded:
        for old in path.parent.glob(_part_name(path, "*")):
            if old != part:
                old.unlink()


def _part(path: Path, step: int) -> Path:
    """The file of this process's tensors of a step."""
    return path if distributed.is_main() else path.with_name(_part_name(path, str(step)))


def _part_name(path: Path, step: str) -> str:
    return f"{path.stem}.{step}.{distributed.rank()}{path.suffix}"


def load_state(path: Path, inputs: dict[str, Any], sharded: bool = False) -> tuple[State | None, str]:
    """The saved state and ""; or None and why it cannot be resumed ("" where there is none).

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
        with safe_open(_part(path, metadata["step"]) if sharded else path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a resumable state ({error}); delete it to restart the node") from None
    return State(metadata["step"], metadata["progress"], tensors), ""
