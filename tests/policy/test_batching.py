import random

import pytest
import torch

from cascade.policy.base import Sequence
from cascade.policy.batching import SIMILAR, micro_batches, trained_count

CPU = torch.device("cpu")


def sequence(prompt, response):
    return Sequence(prompt + response, [False] * len(prompt) + [True] * len(response))


def read_back(batch):
    """(number, context, target) of every trained token, as the blocks hold them."""
    flat = []
    for block in batch.blocks:
        for r, row in enumerate(block.tokens.tolist()):
            parent = []
            if block.parent:
                above, which = batch.blocks[block.parent[0]], int(block.parent[1][r])
                length = int(above.lengths[which]) if above.lengths is not None else above.tokens.shape[1]
                parent = above.tokens[which, :length].tolist()
            flat += [parent + row[: i + 1] for i in range(len(row))]
    pairs = zip(batch.index.tolist(), batch.source.tolist(), batch.target.tolist(), strict=True)
    return [(number, flat[source], target) for number, source, target in pairs]


def test_every_trained_token_is_predicted_once_from_all_before_it():
    draw = random.Random(0)
    sequences = []
    for _ in range(20):
        prompt = [draw.randrange(100) for _ in range(draw.randint(1, 30))]
        sequences += [sequence(prompt, [draw.randrange(100) for _ in range(draw.randint(1, 40))]) for _ in range(3)]
    draw.shuffle(sequences)
    expected, number = {}, 0
    for s in sequences:
        for i in range(len(s.token_ids)):
            if s.trained[i]:
                expected[number] = (s.token_ids[:i], s.token_ids[i])
                number += 1
    for share in (True, False):
        batches = micro_batches(sequences, 200, share, CPU)
        seen = [entry for batch in batches for entry in read_back(batch)]
        assert len(seen) == len(expected) == trained_count(sequences)
        assert {n: (context, target) for n, context, target in seen} == expected


def test_the_budget_holds_unless_one_document_exceeds_it():
    sequences = [sequence([n], [1] * length) for n, length in enumerate([5, 500, 60, 60, 60, 7, 90])]
    for share in (True, False):
        batches = micro_batches(sequences, 130, share, CPU)
        sizes = [sum(block.tokens.numel() for block in batch.blocks) for batch in batches]
        assert sizes[0] == 500
        assert all(size <= 130 / SIMILAR["cpu"] for size in sizes[1:])
        assert sum(batch.tokens for batch in batches) == 5 + 500 + 180 + 7 + 90


def test_a_group_too_large_for_the_budget_repeats_its_prompt():
    sequences = [sequence([9] * 50, [n] * 31) for n in range(8)]
    batches = micro_batches(sequences, 120, True, CPU)
    assert [batch.tokens for batch in batches] == [50 + 2 * 30] * 4


def test_one_token_responses_need_the_prompt_alone():
    (batch,) = micro_batches([sequence([1, 2, 3], [n]) for n in range(4)], 100, True, CPU)
    assert len(batch.blocks) == 1
    assert batch.blocks[0].tokens.tolist() == [[1, 2, 3]]
    assert batch.source.tolist() == [2] * 4


def test_nothing_trained_makes_no_batch():
    assert len(micro_batches([Sequence([1, 2], [False, False])], 100, True, CPU)) == 0
    packed = Sequence([1, 2, 3, 4, 5], [False, False, False, True, False], (2, 3))
    (batch,) = micro_batches([packed], 100, True, CPU)
    assert batch.blocks[0].tokens.tolist() == [[3]]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("parts", [2, 4])
def test_for_several_processes_micro_batches_are_of_one_size(parts: int, share: bool) -> None:
    """One process would make five of these, four full and one nearly empty: as two, one of them would wait."""
    sequences = [Sequence([n, *range(7, 27)], [False, *[True] * 20]) for n in range(41)]
    alone = micro_batches(sequences, 200, share, torch.device("cpu"))
    found = micro_batches(sequences, 200, share, torch.device("cpu"), parts)
    assert len(found) % parts == 0
    assert sum(batch.tokens for batch in found) >= sum(batch.tokens for batch in alone)
    loads = [
        sum(block.tokens.numel() for batch in list(found)[n::parts] for block in batch.blocks) for n in range(parts)
    ]
    assert max(loads) < 1.15 * sum(loads) / parts
    assert sorted(int(i) for batch in found for i in batch.index) == list(range(41 * 20))
