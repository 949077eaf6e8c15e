"""The order in which data is seen: seeded shuffles, epoch after epoch, addressed by position."""

import torch

from cascade.utils.seeds import derive_seed


class ShuffledEpochs:
    """Position → index into `count` items. Each epoch of `count` positions is a permutation of its own.

    The position is all that resuming needs.
    """

    def __init__(self, count: int, *keys: int | str):
        self.count = count
        self._keys = keys
        self._epoch = -1
        self._permutation: list[int] = []

    def __getitem__(self, position: int) -> int:
        epoch, offset = divmod(position, self.count)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(*self._keys, epoch))
            self._permutation = torch.randperm(self.count, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[offset]
