"""From sequences to micro-batches: only tokens whose hidden states are needed, with little padding.

Each packed document becomes a separate row. Documents with the same tokens up to the first trained one (the rollouts of
one prompt) share these as one row, if the engine supports it. A document's last trained token, and the tokens after it,
are not computed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from cascade.errors import CascadeError
from cascade.policy.base import Sequence
from cascade.policy.blocks import Block

SIMILAR = {"cpu": 0.8, "cuda": 0.5}
"""Rows shorter than this share of their block's longest row go to the next block. It is smaller for GPUs, where padding
costs less than the kernel launches of more blocks."""


@dataclass(frozen=True)
class MicroBatch:
    """Blocks for one forward pass. Trained token `index[i]` of the batch is `target[i]`, predicted at position
    `source[i]` of the blocks' concatenated tokens, padding included."""

    blocks: list[Block]
    source: Tensor
    target: Tensor
    index: Tensor
    tokens: int
    part: int = 0
    """Of the batch, where gradients are told apart by parts."""
    together: tuple[int, ...] = ()
    """For a model sharded over processes: number of tokens, with padding, that each process computes in this pass."""


@dataclass(frozen=True)
class _Document:
    tokens: np.ndarray
    """Tokens up to the last trained one, which is only a target."""
    trained: np.ndarray
    """Positions of trained tokens; the first is at least 1."""
    first: int
    """Index of the first trained token within the batch."""

    @property
    def prompt(self) -> int:
        return int(self.trained[0])

    @property
    def needed(self) -> int:
        return int(self.trained[-1])


@dataclass(frozen=True)
class _Unit:
    """Documents computed together; their first `shared` tokens are one row."""

    documents: list[_Document]
    shared: int

    @cached_property
    def cost(self) -> int:
        return self.shared + sum(d.needed - self.shared for d in self.documents)


class MicroBatches:
    """Micro-batches by number, each assembled on access: a GPU computes one while the next is assembled."""

    def __init__(self, units: list[list[_Unit]], assemble: Callable[[list[_Unit]], MicroBatch]):
        self._units, self._assemble = units, assemble

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, number: int) -> MicroBatch:
        return self._assemble(self._units[number])

    def __iter__(self) -> Iterator[MicroBatch]:
        return map(self._assemble, self._units)

    def block_tokens(self, number: int) -> int:
        """Tokens of a micro-batch that is a single block, with padding."""
        needed = [document.needed for unit in self._units[number] for document in unit.documents]
        return len(needed) * max(needed)


def micro_batches(
    sequences: list[Sequence], budget: int, share: bool, device: torch.device, parts: int = 1
) -> MicroBatches:
    """Micro-batches of at most `budget` tokens each (a longer document is alone), with documents of similar lengths.

    With `share`, a micro-batch has blocks of several lengths, some of which continue rows of the first block; without
    it, one block. With several `parts` (processes that run one micro-batch each at a time) their number is a multiple
    of `parts` and their sizes are about equal, if the documents allow it, so that processes wait little for each other.
    Raises CascadeError for a sequence whose document lengths do not add up to its length.
    """
    groups: dict[bytes | int, list[_Document]] = {}
    for document in _documents(sequences):
        key = document.tokens[: document.prompt].tobytes() if share else document.first
        groups.setdefault(key, []).append(document)
    if parts > 1:  # Small enough that every process has one, if the documents allow it.
        budget = min(budget, -(-sum(len(sequence.token_ids) for sequence in sequences) // parts))
    units = _units(list(groups.values()), budget)
    packed = _packed(units, budget, share)
    count = -(-len(packed) // parts) * parts
    low, high = 0, budget
    while parts > 1 and high - low > max(1, budget // 256):
        middle = (low + high) // 2
        tried = _packed(units, middle, share)
        if len(tried) > count:
            low = middle
        else:
            high, packed = middle, tried
    if len(packed) < count and len(even := _packed(units, high, share, count)) == count:
        packed = even
    return MicroBatches(packed, partial(_assemble, share=share, device=device))


def _units(groups: list[list[_Document]], budget: int) -> list[_Unit]:
    """By decreasing length."""
    units = []
    for group in groups:
        shared = group[0].prompt if len(group) > 1 else 0
        group.sort(key=lambda d: -d.needed)
        part: list[_Document] = []
        for document in group:
            if part and _Unit([*part, document], shared).cost > budget:
                units.append(_Unit(part, shared))
                part = []
            part.append(document)
        units.append(_Unit(part, shared))
    units.sort(key=lambda u: -max(d.needed - u.shared for d in u.documents))
    return units


def _packed(units: list[_Unit], budget: int, share: bool, count: int = 0) -> list[list[_Unit]]:
    """Fill batches in order up to the budget; a larger unit is alone. `count`: number of batches, each of which takes
    about an equal part of the remaining tokens."""
    batches: list[list[_Unit]] = []
    left = sum(unit.cost for unit in units)
    room = 0
    for unit in units:
        if (
            batches
            and len(batches) < count
            and sum(u.cost for u in batches[-1]) + unit.cost / 2 > left / (count - len(batches) + 1)
        ):
            left -= sum(u.cost for u in batches[-1])
            room = 0
        # In a single block every row is padded to the first, which is the longest.
        cost = unit.cost if share or not batches else batches[-1][0].cost
        if cost > room:
            batches.append([])
            room = budget
            cost = unit.cost
        batches[-1].append(unit)
        room -= cost
    return batches


def trained_count(sequences: list[Sequence]) -> int:
    return sum(sum(sequence.trained) for sequence in sequences)


def _documents(sequences: list[Sequence]) -> list[_Document]:
    documents, count = [], 0
    for number, sequence in enumerate(sequences):
        ends = [0, *accumulate(sequence.documents or (len(sequence.token_ids),))]
        if len(sequence.trained) != len(sequence.token_ids) or ends[-1] != len(sequence.token_ids):
            raise CascadeError(
                f"sequence {number}: {len(sequence.token_ids)} tokens, {len(sequence.trained)} marks and documents "
                f"of {ends[-1]} tokens; all three must agree"
            )
        # Twice as fast as np.asarray.
        tokens = np.fromiter(sequence.token_ids, np.int64, len(sequence.token_ids))
        marks = np.frombuffer(bytes(sequence.trained), dtype=bool)
        for start, end in pairwise(ends):
            trained = marks[start:end].nonzero()[0]
            if not len(trained):
                continue
            if trained[0] == 0:
                raise CascadeError(f"sequence {number}: token {start} opens a document and cannot be trained on")
            documents.append(_Document(tokens[start : start + trained[-1] + 1], trained, count))
            count += len(trained)
    return documents


def _assemble(units: list[_Unit], share: bool, device: torch.device) -> MicroBatch:
    """Arrange the units in blocks: shared prompts, whole documents, then the continuations of the prompts."""
    prompts = [unit for unit in units if unit.shared]
    whole = [(d, 0, -1) for unit in units if not unit.shared for d in unit.documents]
    tails = [(d, u.shared, n) for n, u in enumerate(prompts) for d in u.documents]
    blocks: list[Block] = []
    source: list[np.ndarray] = []
    target: list[np.ndarray] = []
    index: list[np.ndarray] = []
    start = 0
    prompt_ends = []
    if prompts:
        rows = [unit.documents[0].tokens[: unit.shared] for unit in prompts]
        blocks.append(_block(rows, None, device))
        width = blocks[0].tokens.shape[1]
        prompt_ends = [n * width + unit.shared - 1 for n, unit in enumerate(prompts)]
        start = blocks[0].tokens.numel()
    for rows_of in (whole, tails):
        rows_of.sort(key=lambda row: -(row[0].needed - row[1]))
        begin = 0
        while begin < len(rows_of):
            longest = rows_of[begin][0].needed - rows_of[begin][1]
            end = begin
            while end < len(rows_of) and (
                not share or rows_of[end][0].needed - rows_of[end][1] >= longest * SIMILAR[device.type]
            ):
                end += 1
            members = rows_of[begin:end]
            for n, (d, shared, prompt) in enumerate(members):
                at = start + n * longest + d.trained - 1 - shared
                source.append(np.where(d.trained > shared, at, prompt_ends[prompt]) if shared else at)
                target.append(d.tokens[d.trained])
                index.append(d.first + np.arange(len(d.trained)))
            if longest:
                parent = [prompt for _, _, prompt in members] if rows_of is tails else None
                blocks.append(_block([d.tokens[s : d.needed] for d, s, _ in members], parent, device))
                start += len(members) * longest
            begin = end
    return MicroBatch(
        blocks,
        _moved(np.concatenate(source), device),
        _moved(np.concatenate(target), device),
        _moved(np.concatenate(index), device),
        sum(unit.cost for unit in units),
    )


def _block(rows: list[np.ndarray], parent: list[int] | None, device: torch.device) -> Block:
    lengths = [len(row) for row in rows]
    tokens = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for n, row in enumerate(rows):
        tokens[n, : len(row)] = row
    padded = min(lengths) < max(lengths)
    return Block(
        _moved(tokens, device),
        _moved(np.array(lengths), device) if padded else None,
        None if parent is None else (0, _moved(np.array(parent), device)),
    )


def _moved(values: np.ndarray, device: torch.device) -> Tensor:
    """From pinned memory: otherwise the copy to a GPU waits for all that the GPU has still to compute."""
    found = torch.from_numpy(values)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)
