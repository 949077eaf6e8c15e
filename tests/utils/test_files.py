"""Files are never seen half-written; hashes and seeds are the same everywhere."""

import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from cascade.cli import main
from cascade.errors import CascadeError
from cascade.tracking import Journal
from cascade.training.resume_state import State, save_state
from cascade.utils.files import (
    hash_directory,
    hash_file,
    open_atomic,
    publish_directory,
    read_json,
    read_jsonl,
    room_for,
    write_atomic,
    write_json,
    write_jsonl,
)
from cascade.utils.seeds import derive_seed


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "deep" / "x.txt"
    write_atomic(path, "long content é")
    write_atomic(path, b"\x00short")
    assert path.read_bytes() == b"\x00short"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x.txt"
    write_atomic(path, "old")

    def killed() -> None:
        with open_atomic(path) as file:
            file.write("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert path.read_text() == "old"
    with open_atomic(path) as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_replaced_whole(tmp_path: Path):
    target = tmp_path / "models" / "sft"
    for version in ("one", "two"):
        aside = tmp_path / "aside"
        write_atomic(aside / version / "weights", version)
        publish_directory(aside, target)
        assert not aside.exists()
    assert [path.name for path in target.rglob("*") if path.is_file()] == ["weights"]
    assert (target / "two" / "weights").read_text() == "two"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_kill_left_between_the_two_renames_does_not_stop_the_next(tmp_path: Path):
    target = tmp_path / "sft"
    write_atomic(tmp_path / ".sft.old" / "weights", "old")
    write_atomic(tmp_path / "aside" / "weights", "new")
    publish_directory(tmp_path / "aside", target)
    assert (target / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770), (0o077, 0o600, 0o700)]
)
def test_a_published_directory_is_as_readable_as_the_umask_lets_it_be(
    tmp_path: Path, umask: int, file: int, folder: int
):
    """Weights, which safetensors writes for their owner alone, in a directory that tempfile made; a file that is
    read-only, as DVC's cache has them, stays so."""
    before = os.umask(umask)
    try:
        aside = Path(tempfile.mkdtemp(dir=tmp_path))
        (aside / "inner").mkdir(mode=0o700)
        for path in (aside / "model.safetensors", aside / "inner" / "model.safetensors"):
            save_file({"weight": torch.zeros(2)}, path)
        (aside / "cached").touch()
        (aside / "cached").chmod(0o444)
        publish_directory(aside, tmp_path / "target")
    finally:
        os.umask(before)
    target = tmp_path / "target"
    modes = {str(path.relative_to(target)): path.stat().st_mode & 0o777 for path in (target, *target.rglob("*"))}
    assert modes == {
        ".": folder, "inner": folder, "model.safetensors": file, "inner/model.safetensors": file, "cached": 0o444
    }  # fmt: skip


def test_json_comes_back_and_its_errors_name_the_file(tmp_path: Path):
    value = {"é": [1, 2.5, None, True], "nested": {"a": "\n"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "é" in (tmp_path / "x.json").read_text(encoding="utf-8")
    with pytest.raises(CascadeError, match=r"y\.json: no such file"):
        read_json(tmp_path / "y.json")
    (tmp_path / "z.json").write_text("{'a': 1}")
    with pytest.raises(CascadeError, match=r"z\.json: not JSON"):
        read_json(tmp_path / "z.json")


def test_jsonl_comes_back_line_by_line_and_a_bad_line_is_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "two\nlines"}, {"text": "line\u2028separator"}, {}]
    write_jsonl(path, rows)
    assert len(path.read_bytes().split(b"\n")) == 4
    assert list(read_jsonl(path)) == rows
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n{broken\n")
    read = read_jsonl(path)
    assert [next(read) for _ in range(3)] == rows
    with pytest.raises(CascadeError, match=r"rows\.jsonl:5: not JSON"):
        next(read)


def test_hashes_are_sha_256_of_names_and_contents(tmp_path: Path):
    write_atomic(tmp_path / "a" / "x", "content")
    known = hashlib.sha256(b"content").hexdigest()
    assert hash_file(tmp_path / "a" / "x") == known
    assert hash_directory(tmp_path / "a") == hashlib.sha256(f"x\0{known}\n".encode()).hexdigest()


def test_a_directorys_hash_is_of_every_file_and_of_nothing_else(tmp_path: Path):
    write_atomic(tmp_path / "a" / "x", "1")
    write_atomic(tmp_path / "a" / "sub" / "y", "2")
    first = hash_directory(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_directory(tmp_path / "b") == first
    write_atomic(tmp_path / "b" / "sub" / "y", "3")
    changed = hash_directory(tmp_path / "b")
    (tmp_path / "b" / "sub" / "y").rename(tmp_path / "b" / "sub" / "z")
    renamed = hash_directory(tmp_path / "b")
    write_atomic(tmp_path / "b" / "empty", "")
    assert len({first, changed, renamed, hash_directory(tmp_path / "b")}) == 4


def test_seeds_follow_from_their_keys_alone():
    seed = derive_seed(0, "if_rl", 3, "prompt-1", 2)
    program = "from cascade.utils.seeds import derive_seed; print(derive_seed(0, 'if_rl', 3, 'prompt-1', 2))"
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(again.stdout) == seed
    assert derive_seed("x") == int.from_bytes(hashlib.blake2b(b"str:x", digest_size=8).digest(), "big") >> 1


def test_seeds_of_different_keys_differ():
    keys = [(), (1,), ("1",), (1, 1), (11,), ("a", "b"), ("ab",), ("b", "a"), ("a", ""), ("a",), (0,), (-1,)]
    keys += [("node", step, rollout) for step in range(50) for rollout in range(50)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow past one page: what is written then finds no room, as on a full disk.

    Around the write alone, since pytest's own output may be going to a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getpagesize(), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = "x" * (1 << 20)


def append(path: Path) -> None:
    Journal(path).params({"text": BIG})


def stream(path: Path) -> None:
    with open_atomic(path) as file:
        file.write(BIG)


def save(path: Path) -> None:
    save_state(path, State(2, {}, {"weights": torch.zeros(1 << 18)}), {})


def write_parquet(path: Path) -> None:
    with room_for(path):
        pq.write_table(pa.table({"text": random.Random(0).randbytes(1 << 20).hex().split("0")}), path)


@pytest.mark.parametrize("write", [lambda path: write_atomic(path, BIG), stream, append, save, write_parquet])
def test_a_full_disk_is_one_line_and_what_was_there_stays(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"kind": "params"}\n')
    with pytest.raises(CascadeError) as caught, full_disk():
        write(path)
    assert str(caught.value) == (
        f"{path}: cannot be written (File too large); make room and run it again: it goes on from what was saved last"
    )
    assert {each.name for each in tmp_path.iterdir()} <= {"file"}
    if write is append:
        assert Journal(path).entries() == [{"kind": "params"}]
    elif write is not write_parquet:
        assert path.read_text() == '{"kind": "params"}\n'


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"), room_for(tmp_path):
        raise ValueError("other")


def test_a_command_on_a_full_disk_says_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def fill(layout: object) -> None:
        (tmp_path / "x").write_bytes(bytes(1 << 20))

    monkeypatch.setattr("cascade.commands.doctor.examine", fill)
    with full_disk():
        result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: {tmp_path}: cannot be written (File too large); make room and run it again: it goes on from what was "
        "saved last\n"
    )
