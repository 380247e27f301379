"""Progress callbacks: a bar on the command line, log lines in a Dagster run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int], None]
_listeners: list[Listener] = []


def report(what: str, done: int, total: int) -> None:
    """Report that `done` of `total` rows of `what` (a kernel) are finished; total 0 announces a stage."""
    for listener in _listeners:
        listener(what, done, total)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Call `listener` with every report of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
