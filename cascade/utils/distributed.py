"""The processes that run one node together, as torchrun starts them. A process alone is the first of one.

Every process runs the same loop on the same batches and comes to the same numbers; what costs time is shared out by
rank and put together again. The first process alone writes journal, checkpoints and results, the others wait.
They share one file system.

Collectives are called from the main thread alone: from two threads they would meet in another order in each process,
and wait for each other for ever. A process that has waited too long for another ends, and says for whom and where.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cascade.errors import CascadeError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import TCPStore

T = TypeVar("T")

PATIENCE = 1800.0
"""Seconds that a process waits for the others before the second step and between steps, where models are loaded and
checkpoints are written; $CASCADE_PATIENCE replaces it."""
STEPS, SHORTEST = 5, 120.0
"""Within a step it waits as long as so many of the longest step so far take, and at least so many seconds."""
LAST_RESORT = timedelta(hours=2)
"""After which the backends give up by themselves."""


@dataclass
class _Place:
    rank: int = 0
    size: int = 1
    device: int = 0


_here = _Place()


def size() -> int:
    return _here.size


def rank() -> int:
    return _here.rank


def is_main() -> bool:
    """Whether this is the process that writes."""
    return _here.rank == 0


def device() -> str:
    """The device that this process computes on, with its number: threads start out on the first of a machine."""
    import torch

    return f"cuda:{_here.device}" if torch.cuda.is_available() else "cpu"


def use_device() -> None:
    """Make it the calling thread's current one, on which kernels are launched."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(_here.device)


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
        _here.device = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(_here.device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LAST_RESORT)
    _here.rank, _here.size = dist.get_rank(), dist.get_world_size()
    _watch.start()
    try:
        yield
        barrier()  # The first holds the meeting point: it must not leave before the others.
    finally:
        _watch.stop()
        _here.rank, _here.size, _here.device = 0, 1, 0
        dist.destroy_process_group()


def main_thread_only(what: str) -> None:
    """Raises CascadeError where another thread calls a collective of several processes."""
    thread = threading.current_thread()
    if size() > 1 and thread is not threading.main_thread():
        raise CascadeError(f"{what}: a collective, called from thread {thread.name!r}; only the main thread may")


@contextmanager
def step() -> Iterator[None]:
    """While the block runs, a step of training is done: what a process waits for the others is a few of these."""
    began = time.monotonic()
    _watch.stepping = True
    try:
        yield
    finally:
        _watch.stepping = False
        _watch.longest = max(_watch.longest, time.monotonic() - began)
        _watch.beat()


def alive() -> None:
    """Say that this process gets on, between collectives that not this module calls."""
    _watch.beat()


def barrier() -> None:
    """Wait until every process has come here."""
    gather(None)  # Over gloo: NCCL's own barrier would need a device.


def gather(value: T) -> list[T]:
    """Every process's value, by rank. They are pickled on the way: for results, not for weights."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    found: list[T] = [value] * size()
    with _collective("gather"):
        dist.all_gather_object(found, value)
    return found


def broadcast_from_main(make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    if size() == 1:
        return make()
    import torch.distributed as dist

    with _collective("broadcast_from_main"):
        box = [make() if is_main() else None]
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def all_reduce_sum(*tensors: "Tensor") -> None:
    """Sum each tensor over the processes, in place: the same bits in each of them."""
    if size() > 1:
        import torch.distributed as dist

        with _collective("all_reduce_sum"):
            for tensor in tensors:
                dist.all_reduce(tensor)


def shard(items: list[T]) -> list[T]:
    """This process's part of a list: every size-th item, so that parts are alike where neighbours are."""
    return items[rank() :: size()]


def gather_shards(part: list[T]) -> list[T]:
    """The whole list, from every process's part of it."""
    parts = gather(part)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


@contextmanager
def _collective(name: str) -> Iterator[None]:
    main_thread_only(name)
    _watch.collectives += 1
    _watch.beat()
    yield
    _watch.beat()


class _Watch:
    """A thread that looks whether the main thread gets on, and tells the other processes where it is."""

    def __init__(self) -> None:
        self.stepping = False
        self.longest = 0.0
        """Seconds of the longest step so far."""
        self.collectives = 0
        """Begun so far: who has begun fewer is behind."""
        self._since = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        self._since = time.monotonic()

    @property
    def limit(self) -> float:
        """Seconds without progress after which this process ends."""
        patience = float(os.environ.get("CASCADE_PATIENCE", PATIENCE))
        if not self.stepping or self.longest == 0:
            return patience
        return min(patience, max(SHORTEST, STEPS * self.longest))

    def start(self) -> None:
        self.stepping, self.longest, self.collectives = False, 0.0, 0
        self.beat()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            store = _store()
            while True:
                since = self._since
                stuck = time.monotonic() - since
                here = {"collectives": self.collectives, "stuck": stuck, "at": _main_stack()}
                store.set(f"cascade/where/{rank()}", json.dumps(here))
                if stuck > self.limit:
                    places = [self._told(store, r) for r in range(size())]
                    if self.collectives > min(place["collectives"] for place in places):
                        self._stop.wait(2.0)  # Who is behind says it, if it still can.
                    if since == self._since:
                        self._end(places)
                if self._stop.wait(min(2.0, self.limit / 4)):
                    return
        except RuntimeError:
            return  # The meeting point is gone, and the group with it.

    @staticmethod
    def _told(store: "TCPStore", of: int) -> dict[str, Any]:
        key = f"cascade/where/{of}"
        if not store.check([key]):
            return {"collectives": 0, "stuck": 0.0, "at": "an unknown place"}
        told: dict[str, Any] = json.loads(store.get(key))
        return told

    def _end(self, places: list[dict[str, Any]]) -> NoReturn:
        behind = min(range(len(places)), key=lambda r: (places[r]["collectives"], -places[r]["stuck"]))
        others = "; ".join(f"rank {r} is in {p['at']}" for r, p in enumerate(places) if r != behind)
        line = (
            f"Error: no progress for {time.monotonic() - self._since:.0f} s: rank {behind} is waited for, "
            f"in {places[behind]['at']}; {others}"
        )
        print(line, file=sys.stderr, flush=True)
        os._exit(1)


def _main_stack() -> str:
    """Where the main thread is: the innermost call, and the innermost four of the project: FUNCTION (FILE:LINE) < …"""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    own = [call for call in calls if not _is_library(call.filename)]
    chosen = ([calls[0]] if calls and own[:1] != calls[:1] else []) + own[:4]
    return " < ".join(f"{call.name} ({_short(call.filename)}:{call.lineno})" for call in chosen)


def _is_library(file: str) -> bool:
    return "/cascade/" not in file and ("-packages/" in file or file.startswith((sys.prefix, sys.base_prefix, "<")))


def _short(file: str) -> str:
    return "/".join(file.split("/")[-3:])


def _store() -> "TCPStore":
    """A connection of its own to the meeting point: the group's is in use while the main thread waits."""
    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))


_watch = _Watch()
