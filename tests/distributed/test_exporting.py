"""Two processes write one checkpoint: together the tensors that one process writes, or nothing. And so a state."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cascade.policy import consolidate
from cascade.policy.checkpoint import save_checkpoint
from cascade.utils.files import read_json
from tests.distributed import exporting
from tests.distributed.launch import launch
from tests.policy import tiny

CASES = exporting.CASES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting")
    for case in CASES:
        exporting.make_source(folder, case)
    (folder / "failed" / "model").mkdir(parents=True)
    (folder / "failed" / "model" / "old").touch()
    launch("exporting.py", folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict:
    return torch.load(folder / "found.pt", weights_only=False)


def tensors(directory: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in directory.glob("*.safetensors"):
        of = load_file(path)
        assert not found.keys() & of.keys()
        found |= of
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("case", CASES)
def test_the_tensors_are_those_that_one_process_writes(
    case: str, folder: Path, found: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consolidate, "SHARD_BYTES", exporting.SHARD_BYTES)
    exporting.export(case, folder / f"source-{case}", folder / f"one-{case}")
    one, two = tensors(folder / f"one-{case}"), tensors(folder / f"two-{case}")
    assert_same(one, two)
    buffer = {"plain": "steps", "adapter": "backbone.count"}[case]
    assert two.pop(buffer).tolist() == [3, 4]
    assert_same(exporting.expected(case), two)


@pytest.mark.parametrize("case", CASES)
def test_each_process_writes_about_as_much(case: str, folder: Path, found: dict) -> None:
    written = [process["files"] for process in found[case]]
    names = [name for files in written for name in files]
    assert sorted(names) == sorted(path.name for path in (folder / f"two-{case}").glob("*.safetensors"))
    sizes = [sum((folder / f"two-{case}" / name).stat().st_size for name in files) for files in written]
    assert max(sizes) < 2 * min(sizes)


@pytest.mark.parametrize("case", CASES)
def test_the_index_is_right(case: str, folder: Path) -> None:
    directory = folder / f"two-{case}"
    files = {path.name: load_file(path) for path in directory.glob("*.safetensors")}
    assert len(files) > 1
    assert set(files) == {f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))}
    index = read_json(directory / consolidate.INDEX)
    assert index["weight_map"] == {name: file for file, of in files.items() for name in of}
    assert index["metadata"]["total_size"] == sum(t.nbytes for of in files.values() for t in of.values())


@pytest.mark.parametrize("case", CASES)
def test_weights_are_gathered_as_they_are_stored(case: str, found: dict) -> None:
    """Those of which a part is stored in float32 are not, nor those that the processes have in fewer bytes."""
    kept = {"A_log": torch.float32, "new": torch.float32, "narrow": torch.float16}
    kept |= {"downs": torch.float32} if case == "adapter" else {}
    for process in found[case]:
        dtypes = {name: process["dtypes"][name] for name in exporting.VALUES}
        assert dtypes == {name: kept.get(name, torch.bfloat16) for name in exporting.VALUES}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_cannot_write_fails_all_and_publishes_nothing(rank: int, found: dict) -> None:
    said = found[f"failing {rank}"]
    assert said[rank] == "OSError: [Errno 28] No space left on device"
    assert said[1 - rank] == f"CascadeError: rank {rank} failed: [Errno 28] No space left on device"
    assert found[f"left {rank}"] == ["model", "old"]


@pytest.mark.parametrize("case", CASES)
def test_memory_of_an_earlier_call_is_filled_anew(case: str, folder: Path, tmp_path: Path) -> None:
    host: dict[str, Tensor] = {}

    def saved() -> tuple[dict[str, Tensor], dict[str, int]]:
        consolidate.save_consolidated(net, masters, tiny.tokenizer(), folder / f"source-{case}", tmp_path / case, host)
        return tensors(tmp_path / case), {name: value.data_ptr() for name, value in host.items()}

    net, masters = exporting.make_net(case)
    first, places = saved()
    with torch.no_grad():
        for value in (*masters.values(), net.get_parameter(exporting.FROZEN)):
            value.neg_()
    second, again = saved()
    assert places == again
    assert places.keys() == first.keys()
    assert_same({name: -value if value.is_floating_point() else value for name, value in first.items()}, second)


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    net = tiny.qwen3()
    save_checkpoint(net, tiny.tokenizer(), tmp_path / "source")
    masters = {name: value.detach().neg() for name, value in net.named_parameters()}
    consolidate.save_consolidated(net, masters, tiny.tokenizer(), tmp_path / "source", tmp_path / "saved", {})
    source = tensors(tmp_path / "source")
    assert "lm_head.weight" not in source
    assert_same({name: -value for name, value in source.items()}, tensors(tmp_path / "saved"))


def test_a_small_model_is_one_file(folder: Path, found: dict) -> None:
    assert [process["files"] for process in found["small"]] == [["model.safetensors"], []]
    names = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in (folder / "small").iterdir()} == names


def test_nothing_is_left_beside_the_checkpoint(folder: Path, found: dict) -> None:
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_parts_of_a_state_are_written_at_the_same_time_and_count_together(folder: Path, found: dict) -> None:
    files = [folder / "states" / name for name in ("state.safetensors", "state.2.1.safetensors")]
    remedy = "make room and run it again: it goes on from what was saved last"
    full = [f"{file}: cannot be written (No space left on device); {remedy}" for file in files]
    for rank, of in enumerate(found["states"]):
        assert of["said"] == [
            line if rank == other else f"rank {other} failed: {line}" for other, line in enumerate(full)
        ]
        for name, step in (("after 0", 1), ("after 1", 1), ("last", 3)):
            assert (of[name].step, of[name].progress) == (step, {"order": step})
            assert of[name].tensors["weights"].tolist() == [10.0 * step + rank] * 3
    assert {path.name for path in (folder / "states").iterdir()} == {"state.safetensors", "state.3.1.safetensors"}
