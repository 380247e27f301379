"""Answers computed by a bounded number of threads, in a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.problems import Problem, problem_of

Answer = TypeVar("Answer")


class WorkQueue:
    """Threads that compute answers; requests beyond the bound are refused at once.

    A thread cannot be stopped: an answer that comes too late is thrown away, and its thread counts as one
    that works until then.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self._seconds, self._most = limits.seconds, limits.workers + limits.waiting
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="mm-answer")
        self._lock = Lock()
        self.pending = 0

    async def run(self, function: Callable[..., Answer], *args: Any) -> Answer:
        """Return ``function(*args)``, computed in a thread.

        Raises:
            Problem: ``busy`` where too many wait, ``request_timeout`` where it takes too long, or the problem
                that the function's error is.
        """
        with self._lock:
            if self.pending >= self._most:
                raise Problem(
                    "busy", f"{self.pending} requests are being answered; send it again in a second"
                )
            self.pending += 1
        future = self._threads.submit(function, *args)
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            if future.done() and not future.cancelled() and future.exception() is not None:
                raise problem_of(future.exception() or TimeoutError()) from None
            raise Problem(
                "request_timeout", f"no answer within {self._seconds:g} s; narrow the request down"
            ) from None
        except Exception as error:
            raise problem_of(error) from error

    def _leave(self, future: Future[Any]) -> None:  # noqa: ARG002 - of the future's callback
        with self._lock:
            self.pending -= 1

    def close(self) -> None:
        """Start nothing any more, and wait for the answers in work."""
        self._threads.shutdown(wait=True, cancel_futures=True)
