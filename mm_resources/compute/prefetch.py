"""Prefetch: make the next item of an iterator in a thread while the last one is read."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

_T = TypeVar("_T")
_POLL_SECONDS = 0.2


class Prefetcher(Iterator[_T], Generic[_T]):
    """Items in order, made in a thread: one is buffered and the next is made while one is read.

    The thread ends with the items, or with its current item once this object is gone. Its exceptions are
    raised in the reader.

    Args:
        name: of the thread.
    """

    def __init__(self, items: Iterator[_T], name: str) -> None:
        self._made: Queue[tuple[_T] | BaseException] = Queue(1)
        self._gone = Event()
        # A daemon: the end of the process does not wait for a batch. It holds no reference to this object, so
        # that the object can be collected.
        Thread(target=_make, args=(items, self._made, self._gone), name=name, daemon=True).start()

    def __next__(self) -> _T:
        while True:
            try:
                item = self._made.get(timeout=_POLL_SECONDS)
            except Empty:
                continue  # signals are handled between polls
            if isinstance(item, tuple):
                return item[0]
            self._made.put(item)  # raised again by later calls
            raise item

    def __del__(self) -> None:
        self._gone.set()


def _make(items: Iterator[_T], made: Queue[tuple[_T] | BaseException], gone: Event) -> None:
    def offer(item: tuple[_T] | BaseException) -> None:
        while not gone.is_set():
            try:
                return made.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue

    try:
        for item in items:
            offer((item,))
            if gone.is_set():
                return
        offer(StopIteration())
    except BaseException as error:  # noqa: BLE001 - raised again by the reader
        offer(error)
