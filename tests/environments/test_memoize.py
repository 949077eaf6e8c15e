"""Equal keys are computed once, also when asked for at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.environments.shared.memoize import Once


def test_the_second_who_asks_gets_what_the_first_computed() -> None:
    calls: list[str] = []
    once: Once[int] = Once()

    def compute() -> int:
        calls.append("called")
        return len(calls)

    assert [once.get("a", compute), once.get("a", compute), once.get("b", compute)] == [1, 1, 2]


def test_who_asks_meanwhile_waits_for_the_same_result() -> None:
    once: Once[int] = Once()
    started, may_end = threading.Event(), threading.Event()

    def slow() -> int:
        started.set()
        assert may_end.wait(10)
        return 1

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(once.get, "a", slow)
        assert started.wait(10)
        second = pool.submit(once.get, "a", lambda: 2)
        may_end.set()
        assert (first.result(10), second.result(10)) == (1, 1)


def test_what_failed_is_tried_again() -> None:
    once: Once[int] = Once()
    with pytest.raises(ZeroDivisionError):
        once.get("a", lambda: 1 // 0)
    assert once.get("a", lambda: 3) == 3


def test_only_the_last_used_are_kept() -> None:
    once: Once[int] = Once(size=2)
    for key in ("a", "b", "a", "c"):
        once.get(key, lambda: 1)
    assert once.get("a", lambda: 2) == 1
    assert once.get("b", lambda: 2) == 2
