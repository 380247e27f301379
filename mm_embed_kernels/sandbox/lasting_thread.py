"""A thread that lives as long as its process, to start child processes from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class LastingThread:
    """A daemon thread that calls functions one after the other; it starts with the first call.

    A child that asks to die with its parent gets the signal when the *thread* that started it ends (prctl(2),
    PR_SET_PDEATHSIG): started by a thread of a pool, of Lance or of DuckDB, it would end with that thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Call a function in the thread, wait for it, and return or raise what it does."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
        outcome: Future[_Result] = Future()
        self._calls.put((outcome, function))
        return outcome.result()

    def _serve(self) -> None:
        while True:
            outcome, function = self._calls.get()
            try:
                outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised in the calling thread
                outcome.set_exception(error)
