"""safetensors writes metadata of several keys in an order that differs by process: files whose bytes are compared or
hashed have at most one."""

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from cascade.policy.consolidate import save_consolidated
from cascade.policy.hf import HFPolicy
from cascade.training.resume_state import State, save_state

ROOT = Path(__file__).parents[2]
SAVED = """
import sys, numpy
from safetensors.numpy import save_file
keys = sys.argv[2].split(",")
save_file({name: numpy.zeros(2) for name in "abcdefgh"}, sys.argv[1], {key: key for key in keys})
"""


def metadata(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0])).get("__metadata__", {})


def test_files_whose_bytes_count_have_one_key(tmp_path: Path) -> None:
    HFPolicy(tiny.checkpoint(tmp_path / "one")).save(tmp_path / "saved")
    weights = {"a": torch.zeros(3), "b": torch.zeros(2)}
    net = torch.nn.ParameterDict(weights)
    save_consolidated(net, {}, tiny.tokenizer(), tmp_path / "one", tmp_path / "consolidated", {})
    save_state(
        tmp_path / "state" / "state.safetensors", State(3, {"order": [1], "more": 2}, weights), {"a": "b", "c": "d"}
    )
    files = [*tmp_path.rglob("*.safetensors"), ROOT / "models" / "base" / "model.safetensors"]
    assert len(files) == 5
    for path in files:
        assert len(metadata(path)) <= 1, path


@pytest.mark.parametrize(("keys", "alike"), [("a", True), (",".join("abcdefghijkl"), False)])
def test_why(tmp_path: Path, keys: str, alike: bool) -> None:
    hashes = set()
    for number in range(3):
        subprocess.run([sys.executable, "-c", SAVED, str(tmp_path / str(number)), keys], check=True, timeout=60)
        hashes.add(hashlib.sha256((tmp_path / str(number)).read_bytes()).hexdigest())
    assert (len(hashes) == 1) == alike
