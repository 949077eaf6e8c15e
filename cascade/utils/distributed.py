"""The processes that run one node together, as torchrun starts them. A process alone is the first of one.

Every process runs the same loop on the same batches and comes to the same numbers; what costs time is shared out by
rank and put together again. The first process alone writes journal, checkpoints and results, the others wait.
They share one file system.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: their shares of a step differ, and a large checkpoint takes time."""


@dataclass
class _Place:
    rank: int = 0
    size: int = 1


_here = _Place()


def size() -> int:
    return _here.size


def rank() -> int:
    return _here.rank


def is_main() -> bool:
    """Whether this is the process that writes."""
    return _here.rank == 0


@contextmanager
def process_group() -> Iterator[None]:
    """While the block runs, this process is one of torchrun's group: NCCL for what lies on GPUs, gloo for the rest."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    _here.rank, _here.size = dist.get_rank(), dist.get_world_size()
    try:
        yield
        barrier()  # The first holds the meeting point: it must not leave before the others.
    finally:
        _here.rank, _here.size = 0, 1
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process has come here."""
    gather(None)  # Over gloo: NCCL's own barrier would need a device.


def gather(value: T) -> list[T]:
    """Every process's value, by rank. They are pickled on the way: for results, not for weights."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    found: list[T] = [value] * size()
    dist.all_gather_object(found, value)
    return found


def broadcast_from_main(make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    if size() == 1:
        return make()
    import torch.distributed as dist

    box = [make() if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def all_reduce_sum(*tensors: "Tensor") -> None:
    """Sum each tensor over the processes, in place: the same bits in each of them."""
    if size() > 1:
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)


def shard(items: list[T]) -> list[T]:
    """This process's part of a list: every size-th item, so that parts are alike where neighbours are."""
    return items[rank() :: size()]


def gather_shards(part: list[T]) -> list[T]:
    """The whole list, from every process's part of it."""
    parts = gather(part)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]
