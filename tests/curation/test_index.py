from pathlib import Path

import numpy as np
import pytest

from cascade.curation import index
from cascade.curation.index import KeyIndex


def matches(found: tuple[np.ndarray, np.ndarray]) -> set[tuple[int, int]]:
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def test_finds_every_row_of_a_key(tmp_path: Path):
    known = KeyIndex(tmp_path / "index")
    known.add(np.array([5, 7, 5], np.uint64), np.array([0, 1, 2]))
    known.add(np.array([7], np.uint64), np.array([9]))
    assert matches(known.find(np.array([7, 6, 5], np.uint64))) == {(0, 1), (0, 9), (2, 0), (2, 2)}


def test_an_empty_index_finds_nothing(tmp_path: Path):
    assert matches(KeyIndex(tmp_path / "index").find(np.array([1], np.uint64))) == set()


@pytest.mark.parametrize("largest", [64, 1 << 20])
def test_runs_on_disk_answer_like_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int):
    monkeypatch.setattr(index, "IN_MEMORY", 32)
    monkeypatch.setattr(index, "LARGEST", largest)
    rng = np.random.default_rng(0)
    known, expected = KeyIndex(tmp_path / "index"), {}
    for at in range(40):
        keys = rng.integers(0, 10_000, 20).astype(np.uint64)
        rows = np.arange(20) + 20 * at
        known.add(keys, rows)
        for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
            expected.setdefault(key, set()).add(row)
    asked = np.arange(10_000, dtype=np.uint64)
    assert matches(known.find(asked)) == {(key, row) for key, rows in expected.items() for row in rows}
    assert list((tmp_path / "index").glob("*.npy")), "nothing was written to disk"


def test_merged_runs_leave_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "IN_MEMORY", 0)
    known = KeyIndex(tmp_path / "index")
    for at in range(16):
        known.add(np.array([at], np.uint64), np.array([at]))
    known.add(np.arange(100, dtype=np.uint64), np.arange(100))
    assert len(list((tmp_path / "index").glob("*.npy"))) == 2, "keys and rows of the one merged run"


def test_a_key_common_to_all_rows_is_bounded(tmp_path: Path):
    known = KeyIndex(tmp_path / "index")
    known.add(np.zeros(1000, np.uint64), np.arange(1000))
    assert len(known.find(np.zeros(1, np.uint64))[0]) == index.MOST_MATCHES
