import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cascade.curation import packing, pieces
from cascade.curation.packing import best_fit, plan, save_plan, write_part
from cascade.curation.pieces import TOKENS, TokenReader


def planned(lengths: list[int], length: int, seed: int = 1) -> list[list[int]]:
    return list(plan(np.array(lengths, np.int32), length, random.Random(seed)))


def test_best_fit_by_hand():
    assert best_fit([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    assert best_fit([], 10) == []
    assert best_fit([10, 10], 10) == [[0], [1]]


def test_every_conversation_whole_and_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 500)
    monkeypatch.setattr(packing, "WINDOW_SEQUENCES", 5)
    rng = random.Random(0)
    lengths = [rng.randrange(1, 101) for _ in range(500)]
    sequences = planned(lengths, 100)
    assert all(sum(lengths[i] for i in sequence) <= 100 for sequence in sequences)
    assert sorted(i for sequence in sequences for i in sequence) == list(range(500))


def test_fill_rate_of_short_conversations():
    rng = random.Random(0)
    lengths = [rng.randrange(20, 200) for _ in range(3000)]
    assert sum(lengths) / (1024 * len(planned(lengths, 1024))) > 0.97


def test_conversations_of_different_sources_are_mixed():
    spans = [max(sequence) - min(sequence) for sequence in planned([50] * 2000, 500)]
    assert sum(spans) / len(spans) > 1000, "a sequence holds conversations from all over the file"


def test_the_same_seed_plans_the_same():
    lengths = [random.Random(2).randrange(1, 60) for _ in range(300)]
    assert planned(lengths, 64) == planned(lengths, 64)
    assert planned(lengths, 64, 1) != planned(lengths, 64, 2)


def test_nothing_to_pack():
    assert planned([], 100) == []


def test_conversations_that_never_share_a_sequence_do_not_pile_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 1 << 14)
    monkeypatch.setattr(packing, "WINDOW_SEQUENCES", 4)

    def peak(count: int) -> int:
        lengths = np.full(count, 60, np.int32)
        tracemalloc.start()
        assert sum(1 for _ in plan(lengths, 100, random.Random(0))) == count
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(6000) < peak(1500) + (1 << 20)


def piece(folder: Path, lengths: list[int]) -> Path:
    """The tokens of a piece: conversation n has the token n, trained on from its middle."""
    folder.mkdir(parents=True)
    starts = [0]
    with pieces.pa.ipc.new_file(str(folder / "tokens.arrow"), TOKENS) as writer:
        for begin in range(0, len(lengths), 3):
            part = range(begin, min(begin + 3, len(lengths)))
            ids = pieces.lists([[n] * lengths[n] for n in part], pieces.pa.int32())
            runs = pieces.lists([[lengths[n] // 2, lengths[n] - lengths[n] // 2] for n in part], pieces.pa.int32())
            writer.write_batch(pieces.pa.RecordBatch.from_arrays([ids, runs], schema=TOKENS))
            starts.append(part.stop)
    np.save(folder / "batches.npy", np.array(starts))
    return folder


def test_the_tokens_of_a_piece_by_number(tmp_path: Path):
    reader = TokenReader(piece(tmp_path / "a", [4, 2, 3, 5, 1]))
    assert reader.count == 5
    for number in (4, 0, 3, 2):
        ids, runs = reader[number]
        reader.release()
        assert set(ids.tolist()) == {number}
        assert runs.tolist() == [len(ids) // 2, len(ids) - len(ids) // 2]


def test_a_part_has_the_planned_sequences(tmp_path: Path):
    piece(tmp_path / "a", [4, 2, 3, 5, 1])
    piece(tmp_path / "b", [2, 2])
    places = np.array([[0, 3], [1, 1], [1, 0], [0, 0], [0, 4], [0, 1]], np.uint32)
    save_plan(tmp_path / "plan.npz", ["a", "b"], [2, 1, 3], places)
    for name in ("one", "two"):
        write_part(tmp_path / "plan.npz", tmp_path, tmp_path / "out" / f"{name}.parquet")
    rows = pq.read_table(tmp_path / "out" / "one.parquet").to_pylist()
    assert [row["documents"] for row in rows] == [[5, 2], [2], [4, 1, 2]]
    assert rows[0]["input_ids"] == [3, 3, 3, 3, 3, 1, 1]
    assert rows[0]["trained"] == [False, False, True, True, True, False, True]
    assert rows[2]["input_ids"] == [0, 0, 0, 0, 4, 1, 1]
    assert (tmp_path / "out/one.parquet").read_bytes() == (tmp_path / "out/two.parquet").read_bytes()
    assert json.dumps(sorted(p.name for p in (tmp_path / "out").iterdir())) == '["one.parquet", "two.parquet"]'
