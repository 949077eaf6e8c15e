import random
import tracemalloc
from pathlib import Path

import pytest

from cascade.chat import Conversation
from cascade.curation import packing
from cascade.curation.packing import Spool, best_fit, pack


def spooled(path: Path, lengths: list[int]) -> Spool:
    """Conversations whose tokens are their own number."""
    spool = Spool(path)
    for number, length in enumerate(lengths):
        spool.add(Conversation([number] * length, [i >= length // 2 for i in range(length)]))
    return spool


def test_best_fit_by_hand():
    assert best_fit([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    assert best_fit([], 10) == []
    assert best_fit([10, 10], 10) == [[0], [1]]


def test_every_conversation_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 500)
    monkeypatch.setattr(packing, "WINDOW_SEQUENCES", 5)
    rng = random.Random(0)
    lengths = [rng.randrange(1, 101) for _ in range(500)]
    sequences = list(pack(spooled(tmp_path / "spool", lengths).pieces(random.Random(1)), 100, random.Random(1)))
    seen = []
    for sequence in sequences:
        assert sum(sequence.documents) == len(sequence.token_ids) == len(sequence.trained) <= 100
        at = 0
        for length in sequence.documents:
            [number] = set(sequence.token_ids[at : at + length])
            assert length == lengths[number]
            assert sequence.trained[at : at + length] == [i >= length // 2 for i in range(length)]
            seen.append(number)
            at += length
    assert sorted(seen) == list(range(500))


def test_fill_rate_of_short_conversations(tmp_path: Path):
    rng = random.Random(0)
    lengths = [rng.randrange(20, 200) for _ in range(3000)]
    sequences = list(pack(spooled(tmp_path / "spool", lengths).pieces(random.Random(1)), 1024, random.Random(1)))
    assert sum(lengths) / (1024 * len(sequences)) > 0.97


def test_conversations_of_different_sources_are_mixed(tmp_path: Path):
    sequences = list(pack(spooled(tmp_path / "spool", [50] * 2000).pieces(random.Random(1)), 500, random.Random(1)))
    spans = [max(s.token_ids) - min(s.token_ids) for s in sequences]
    assert sum(spans) / len(spans) > 1000, "a sequence holds conversations from all over the file"


def test_the_same_seed_packs_the_same(tmp_path: Path):
    lengths = [random.Random(2).randrange(1, 60) for _ in range(300)]

    def packed(name: str, seed: int) -> list:
        rng = random.Random(seed)
        return list(pack(spooled(tmp_path / name, lengths).pieces(rng), 64, rng))

    assert packed("a", 1) == packed("b", 1)
    assert packed("c", 1) != packed("d", 2)


def test_nothing_to_pack(tmp_path: Path):
    assert list(pack(Spool(tmp_path / "spool").pieces(random.Random(0)), 100, random.Random(0))) == []


def test_conversations_that_never_share_a_sequence_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 1 << 14)
    monkeypatch.setattr(packing, "WINDOW_SEQUENCES", 4)

    def peak(count: int) -> int:
        spool = spooled(tmp_path / f"spool{count}", [60] * count)
        tracemalloc.start()
        assert sum(1 for _ in pack(spool.pieces(random.Random(0)), 100, random.Random(0))) == count
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(6000) < peak(1500) + (1 << 20)
