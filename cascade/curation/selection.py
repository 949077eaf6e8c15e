"""Which rows of all pieces are kept: duplicates, difficulty, the number of rows asked for, the held-out draw.

Rows are taken in the order of the sources, whatever process read them. Only arrays of small numbers are in memory: a
few bytes a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.curation.dedupe import Resolver
from cascade.curation.pieces import MadePiece, Piece
from cascade.curation.sources import Shard
from cascade.curation.steps import DUPLICATES
from cascade.errors import RowError

Judge = Callable[["Share", NDArray[np.int64]], Iterator[tuple[RowError | None, float | None]]]
"""Difficulty: of some rows of a piece, in order, the error and the pass rate of each."""


@dataclass
class Share:
    """A piece and what the selection made of it."""

    piece: Piece
    made: MadePiece
    drawn: int = 0
    """Rows up to where the source had given enough."""
    kept: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows of the piece, in order."""
    errors: dict[int, tuple[str, RowError]] = field(default_factory=dict)
    """Row → step and error, of rows that the selection rejects; the piece has those of its own steps."""
    pass_rates: dict[int, float | None] = field(default_factory=dict)


@dataclass
class Segment:
    """The rows of a source for one use (of a generator, at one level), in order."""

    source: str
    wanted: int | None
    """Rows to keep; None: all."""
    level: int | None = None
    draw: int | None = None
    """Keep so many rows, drawn from all: a benchmark of a stored source."""
    limit: int | None = None
    shards: list[Shard] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    waves: int = 0

    @property
    def kept(self) -> int:
        return sum(len(share.kept) for share in self.shares)

    @property
    def missing(self) -> int | None:
        return None if self.wanted is None else self.wanted - self.kept

    def ordered(self) -> None:
        """Sort the shares by their place in the source."""
        places = {shard: number for number, shard in enumerate(self.shards)}
        self.shares.sort(key=lambda share: (places.get(share.piece.shard or Shard(), 0), share.piece.skip))

    def interrupted(self) -> Share | None:
        """The share after which rows of its shard are left, though they come next."""
        for share in self.shares:
            following = self._continued(share)
            if not share.made.exhausted and not following:
                return share
        return None

    def _continued(self, share: Share) -> bool:
        end = share.piece.skip + share.made.rows
        return any(other.piece.shard == share.piece.shard and other.piece.skip == end for other in self.shares)


def select(segments: Sequence[Segment], resolver: Resolver, judge: Judge | None) -> None:
    """Set what is drawn and kept of every share. A segment that stops at an interrupted share is short."""
    base = 0
    for segment in segments:
        left = segment.wanted
        stopped = False
        for share in segment.shares:
            slots = share.made.array("slots")
            share.drawn, share.kept, share.errors, share.pass_rates = 0, np.empty(0, np.int64), {}, {}
            if not stopped and (left is None or left > 0):
                _select_share(share, slots, base, left, resolver, judge)
                left = None if left is None else left - len(share.kept)
                stopped = left is not None and left > 0 and not share.made.exhausted and not segment._continued(share)
            drawn_slots = int(np.searchsorted(slots, share.drawn))
            resolver.forget(base + drawn_slots, base + len(slots))
            base += len(slots)


def draw_lowest(segment: Segment, count: int, keep: int) -> list[tuple[Share, int]]:
    """Of the kept rows the `count` with the lowest ranks, in this order: a draw that does not depend on the order of
    the rows, and holds out all copies of a prompt. The rows after the first `keep` of them are no longer kept."""
    ranks = np.concatenate([share.made.array("ranks")[share.kept] for share in segment.shares])
    owners = np.repeat(np.arange(len(segment.shares)), [len(share.kept) for share in segment.shares])
    rows = np.concatenate([share.kept for share in segment.shares])
    order = np.argsort(ranks, kind="stable")[:count]
    for number, share in enumerate(segment.shares):
        kept = order[:keep]
        share.kept = np.sort(rows[kept[owners[kept] == number]])
    return [(segment.shares[owners[at]], int(rows[at])) for at in order]


def _select_share(
    share: Share, slots: NDArray[Any], base: int, left: int | None, resolver: Resolver, judge: Judge | None
) -> None:
    reasons = share.made.array("reasons")
    passed = reasons == 0
    for slot, error in resolver.check(base, base + len(slots)).items():
        row = int(slots[slot - base])
        share.errors[row] = (DUPLICATES, error)
        passed[row] = False
    rows = np.flatnonzero(passed)
    if judge is not None:
        rows = _judged(share, rows, left, judge)
    if left is not None and len(rows) >= left:
        share.kept = rows[:left]
        share.drawn = int(rows[left - 1]) + 1
        share.errors = {row: error for row, error in share.errors.items() if row < share.drawn}
    else:
        share.kept, share.drawn = rows, share.made.rows


def _judged(share: Share, rows: NDArray[np.int64], left: int | None, judge: Judge) -> NDArray[np.int64]:
    """The rows whose difficulty is as asked for; no more are judged than are needed."""
    kept: list[int] = []
    at = 0
    while at < len(rows) and (left is None or len(kept) < left):
        some = rows[at:] if left is None else rows[at : at + left - len(kept)]
        for row, (error, pass_rate) in zip(some.tolist(), judge(share, some), strict=True):
            share.pass_rates[row] = pass_rate
            if error is None:
                kept.append(row)
            else:
                share.errors[row] = ("difficulty", error)
        at += len(some)
    return np.array(kept, np.int64)
