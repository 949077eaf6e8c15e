"""Processes that would wait for each other for ever end instead, and say in one line where."""

import re
import time

import pytest

from tests.distributed.launch import started


def test_a_collective_from_another_thread_is_refused() -> None:
    printed = started("waiting.py", "thread")
    assert printed.endswith("exit 0"), printed
    refused = "gather: a collective, called from thread 'next-teacher_0'; only the main thread may"
    assert printed.count(refused) == 2


@pytest.mark.parametrize(("what", "patience"), [("peer", "3"), ("step", "250")])
def test_who_is_waited_for_is_named_with_its_stack(what: str, patience: str) -> None:
    """Between steps for as long as it is said; within the third step for a few of the first two."""
    began = time.monotonic()
    printed = started("waiting.py", what, CASCADE_PATIENCE=patience)
    assert time.monotonic() - began < 200  # Two processes that import torch, on a busy machine.
    assert not printed.endswith("exit 0")
    (line, *_) = [line for line in printed.splitlines() if line.startswith("Error: no progress")]
    assert re.search(r"rank 1 is waited for, in elsewhere \(.*waiting.py:\d+\) < main \(.*waiting.py:\d+\)", line)
    assert re.search(r"; rank 0 is in .*gather \(.*cascade/utils/distributed.py:\d+\) < barrier", line)


def test_who_gets_on_is_waited_for() -> None:
    assert started("waiting.py", "slow", CASCADE_PATIENCE="2").endswith("exit 0")
