"""Execute what is the same once: rollouts of a group often hold the same program."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Results by key, the `size` last used. Any thread may ask; who asks for what another is computing waits for it.

    Equal answers get equal verdicts by that, whatever else the machine was doing. An exception is raised to all who
    wait, and not kept.
    """

    def __init__(self, size: int = 4096):
        self.size = size
        self._lock = Lock()
        self._found: OrderedDict[Hashable, Future[T]] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        with self._lock:
            known = self._found.get(key)
            future: Future[T] = known or Future()
            self._found[key] = future
            self._found.move_to_end(key)
            if len(self._found) > self.size:
                self._found.popitem(last=False)
        if known is None:
            try:
                future.set_result(compute())
            except BaseException as error:
                with self._lock:
                    self._found.pop(key, None)
                future.set_exception(error)
        return future.result()
