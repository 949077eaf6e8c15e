"""Execute what is the same once: rollouts of a group often hold the same program."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Results by key, the `size` last used. A key says all that a result depends on; its hash alone is kept, for hidden
    tests may be megabytes. Any thread may ask; who asks for what another is computing waits for it.

    Equal answers get equal verdicts by that, whatever else the machine was doing. An exception is raised to all who
    wait, and not kept.
    """

    def __init__(self, size: int = 4096):
        self.size = size
        self._lock = Lock()
        self._found: OrderedDict[bytes, Future[T]] = OrderedDict()

    def get(self, key: str, compute: Callable[[], T]) -> T:
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        with self._lock:
            known = self._found.get(digest)
            future: Future[T] = known or Future()
            self._found[digest] = future
            self._found.move_to_end(digest)
            if len(self._found) > self.size:
                self._found.popitem(last=False)
        if known is None:
            try:
                future.set_result(compute())
            except BaseException as error:
                with self._lock:
                    self._found.pop(digest, None)
                future.set_exception(error)
        return future.result()
