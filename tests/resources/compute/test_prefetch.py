from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mm_resources.compute.prefetch import Prefetcher


def counted(made: list[int], most: int = 100) -> Iterator[int]:
    for number in range(most):
        made.append(number)
        yield number


def test_items_come_in_order_and_end() -> None:
    items = Prefetcher(counted([], 50), "test")
    assert list(items) == list(range(50))
    assert list(items) == []


def test_it_is_ahead_and_not_far() -> None:
    made: list[int] = []
    items = Prefetcher(counted(made), "test")
    for read in range(1, 4):
        assert next(items) == read - 1
        settled(lambda read=read: len(made) == read + 2)  # one waits, one is made
        time.sleep(0.05)
        assert len(made) == read + 2


def test_what_goes_wrong_is_raised_after_what_was_made() -> None:
    class Killed(BaseException):
        pass

    def broken() -> Iterator[int]:
        yield 1
        raise Killed("at work")

    items = Prefetcher(broken(), "test")
    assert next(items) == 1
    for _ in range(2):
        with pytest.raises(Killed, match="at work"):
            next(items)


def test_the_thread_ends_when_the_reader_has_gone() -> None:
    made: list[int] = []
    items = Prefetcher(counted(made), "gone-reader")
    assert next(items) == 0
    del items
    settled(lambda: not any(thread.name == "gone-reader" for thread in threading.enumerate()))
    assert len(made) < 5


def settled(holds: object) -> None:
    until = time.monotonic() + 10
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)
