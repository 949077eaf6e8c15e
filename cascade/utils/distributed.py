"""The processes of one node, as torchrun starts them. A process without torchrun is rank 0 of 1.

Every process runs the same loop on the same batches and gets the same numbers; expensive work is sharded by rank and
gathered. Only the main process (rank 0) writes journal and results, and publishes checkpoints. All processes share a
file system.

Collectives must be called from the main thread: from two threads, their order could differ between processes, and they
would deadlock. A process that waits too long for another exits with an error that names the rank and where it is.
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
"""Timeout of waiting for other processes before the second step and between steps, where models are loaded and
checkpoints are written, in seconds; $CASCADE_PATIENCE overrides it."""
STEPS, SHORTEST = 5, 120.0
"""Timeout within a step: STEPS times the longest step so far, but at least SHORTEST seconds."""
LAST_RESORT = timedelta(hours=2)
"""Timeout of the communication backends."""


@dataclass
class _Place:
    rank: int = 0
    size: int = 1
    device: int = 0


_place = _Place()


def size() -> int:
    return _place.size


def rank() -> int:
    return _place.rank


def is_main() -> bool:
    """Whether this is the main process, the one that writes."""
    return _place.rank == 0


def device() -> str:
    """This process's device with its index, because new threads start on device 0."""
    import torch

    return f"cuda:{_place.device}" if torch.cuda.is_available() else "cpu"


def use_device() -> None:
    """Make this process's device the current one of the calling thread."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(_place.device)


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's process group while the block runs: NCCL for tensors on GPUs, gloo for the rest."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        _place.device = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(_place.device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LAST_RESORT)
    _place.rank, _place.size = dist.get_rank(), dist.get_world_size()
    _watch.start()
    try:
        yield
        barrier()  # Rank 0 has the store: it must not leave before the others.
    finally:
        _watch.stop()
        _place.rank, _place.size, _place.device = 0, 1, 0
        dist.destroy_process_group()


def main_thread_only(what: str) -> None:
    """Raises CascadeError where another thread calls a collective of several processes."""
    thread = threading.current_thread()
    if size() > 1 and thread is not threading.main_thread():
        raise CascadeError(f"{what}: a collective, called from thread {thread.name!r}; only the main thread may")


@contextmanager
def step() -> Iterator[None]:
    """A training step, by whose duration the timeout of waiting within steps is set."""
    began = time.monotonic()
    _watch.stepping = True
    try:
        yield
    finally:
        _watch.stepping = False
        _watch.longest = max(_watch.longest, time.monotonic() - began)
        _watch.beat()


def alive() -> None:
    """Report progress of this process, between collectives outside of this module."""
    _watch.beat()


def barrier() -> None:
    """Wait until every process has called it."""
    gather(None)  # Over gloo: NCCL's own barrier would need a device.


def gather(value: T) -> list[T]:
    """Every process's value, by rank. They are pickled, so use it for results, not for weights."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[T] = [value] * size()
    with _collective("gather"):
        dist.all_gather_object(values, value)
    return values


@contextmanager
def together() -> Iterator[None]:
    """Wait at the end of the block until every process is there. Raises what the block raises, and CascadeError in the
    other processes. The block must not contain collectives."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failures = gather(None if failure is None else " ".join(str(failure).split()) or type(failure).__name__)
    if failure is not None:
        raise failure
    for number, reason in enumerate(failures):
        if reason is not None:
            raise CascadeError(f"rank {number} failed: {reason}")


def broadcast_from_main(make: Callable[[], T]) -> T:
    """The result of `make`, called in the main process, in every process."""
    if size() == 1:
        return make()
    import torch.distributed as dist

    with _collective("broadcast_from_main"):
        box = [make() if is_main() else None]
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def all_reduce_sum(*tensors: "Tensor") -> None:
    """Sum each tensor over the processes, in place, with the same bits in each."""
    if size() > 1:
        import torch.distributed as dist

        with _collective("all_reduce_sum"):
            for tensor in tensors:
                dist.all_reduce(tensor)


def shard(items: list[T]) -> list[T]:
    """This process's part of a list: every size-th item, because neighbouring items cost about the same."""
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
    """A watchdog thread that checks the progress of the main thread and publishes its position to the other
    processes."""

    def __init__(self) -> None:
        self.stepping = False
        self.longest = 0.0
        """Seconds of the longest step so far."""
        self.collectives = 0
        """Collectives started so far: the process with the fewest is behind."""
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
                position = {"collectives": self.collectives, "stuck": stuck, "at": _main_stack()}
                store.set(f"cascade/where/{rank()}", json.dumps(position))
                if stuck > self.limit:
                    positions = [self._position(store, r) for r in range(size())]
                    if self.collectives > min(place["collectives"] for place in positions):
                        self._stop.wait(2.0)  # The process that is behind reports first, if it can.
                    if since == self._since:
                        self._end(positions)
                if self._stop.wait(min(2.0, self.limit / 4)):
                    return
        except RuntimeError:
            return  # The store has ended, and the group with it.

    @staticmethod
    def _position(store: "TCPStore", other_rank: int) -> dict[str, Any]:
        key = f"cascade/where/{other_rank}"
        if not store.check([key]):
            return {"collectives": 0, "stuck": 0.0, "at": "an unknown place"}
        position: dict[str, Any] = json.loads(store.get(key))
        return position

    def _end(self, positions: list[dict[str, Any]]) -> NoReturn:
        behind = min(range(len(positions)), key=lambda r: (positions[r]["collectives"], -positions[r]["stuck"]))
        others = "; ".join(f"rank {r} is in {p['at']}" for r, p in enumerate(positions) if r != behind)
        line = (
            f"Error: no progress for {time.monotonic() - self._since:.0f} s: rank {behind} is waited for, "
            f"in {positions[behind]['at']}; {others}"
        )
        print(line, file=sys.stderr, flush=True)
        os._exit(1)


def _main_stack() -> str:
    """Stack of the main thread: its innermost call, and the innermost four of the project: FUNCTION (FILE:LINE) < …"""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    project_calls = [call for call in calls if not _is_library(call.filename)]
    calls_shown = ([calls[0]] if calls and project_calls[:1] != calls[:1] else []) + project_calls[:4]
    return " < ".join(f"{call.name} ({_short(call.filename)}:{call.lineno})" for call in calls_shown)


def _is_library(file: str) -> bool:
    return "/cascade/" not in file and ("-packages/" in file or file.startswith((sys.prefix, sys.base_prefix, "<")))


def _short(file: str) -> str:
    return "/".join(file.split("/")[-3:])


def _store() -> "TCPStore":
    """A new connection to the store: the group's is in use while the main thread waits."""
    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))


_watch = _Watch()
