"""How often each kept conversation is packed: the recipe's caps, epochs and weights.

Rows are drawn by the hash of their prompt, the lowest first, so that a draw does not depend on the order of the rows,
and a larger one has the rows of a smaller.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.curation.selection import Segment, Share
from cascade.recipe import Mixture

Copies = list[NDArray[np.int64]]
"""Of each share, how often each of its kept rows is packed."""


def apply_mixture(mixture: Mixture, domains: Mapping[str, str], segments: Sequence[Segment]) -> dict[int, Any]:
    """By id of each share, how often each of its kept rows is packed; rows that are not packed are no longer kept.
    `domains` are those of the sources."""
    sources = {name: _Amounts(mixture, [s for s in segments if s.source == name]) for name in domains}
    sources = {name: amounts for name, amounts in sources.items() if amounts.shares}
    epochs = {name: mixture.epochs.get(domains[name], 1.0) for name in sources}
    capped = {name: amounts.cap(mixture.caps.get(name)) for name, amounts in sources.items()}
    weights = {name: weight for name, weight in mixture.weights.items() if name in sources}
    if weights:
        # The largest mixture of these proportions for which no source has to give more than it has.
        scale = min(capped[name] * epochs[name] / weight for name, weight in weights.items())
        epochs |= {name: weight * scale / capped[name] if capped[name] else 0 for name, weight in weights.items()}
    result: dict[int, Any] = {}
    for name, amounts in sources.items():
        for share, copies in zip(amounts.shares, amounts.copies(epochs[name]), strict=True):
            packed = copies > 0
            share.kept, result[id(share)] = share.kept[packed], copies[packed]
    return result


class _Amounts:
    """The kept rows of a source in the order in which they are drawn, and how much each is, in rows or tokens."""

    def __init__(self, mixture: Mixture, segments: Sequence[Segment]):
        self.shares: list[Share] = [share for segment in segments for share in segment.shares]
        sizes = [self._sizes(share, mixture.unit) for share in self.shares]
        ranks = [share.made.array("ranks")[share.kept] for share in self.shares]
        self._bounds = np.cumsum([0, *map(len, sizes)])
        self._order = np.argsort(np.concatenate([np.empty(0, np.uint64), *ranks]), kind="stable")
        self._sizes_in_order = np.concatenate([np.empty(0, np.int64), *sizes])[self._order]
        self._count = len(self._order)

    def cap(self, most: int | None) -> int:
        """Leave out what is beyond `most`; returns what there is."""
        if most is not None:
            self._count = int(np.searchsorted(np.cumsum(self._sizes_in_order), most, "right"))
        return int(self._sizes_in_order[: self._count].sum())

    def copies(self, epochs: float) -> Copies:
        """The whole epochs of every row, and the rest of the first ones."""
        whole = int(epochs)
        sums = np.cumsum(self._sizes_in_order[: self._count])
        rest = (epochs - whole) * (sums[-1] if len(sums) else 0)
        # Half a row's rounding: 0.3 epochs of ten equal rows are three rows.
        more = int(np.searchsorted(sums, rest + 1e-6 * max(rest, 1), "right"))
        times = np.zeros(len(self._order), np.int64)
        times[self._order[: self._count]] = whole
        times[self._order[:more]] += 1
        return [times[begin:end] for begin, end in zip(self._bounds[:-1], self._bounds[1:], strict=True)]

    @staticmethod
    def _sizes(share: Share, unit: str) -> NDArray[np.int64]:
        if unit == "rows":
            return np.ones(len(share.kept), np.int64)
        tokens = np.zeros(share.made.rows, np.int64)
        np.add.at(tokens, share.made.array("example-rows"), share.made.array("example-lengths"))
        return tokens[share.kept]
