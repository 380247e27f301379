"""The sandbox, the only place where untrusted bytes are opened: children with limits on memory and time.

Children are spawned and reused. A crash, a hang or too large an allocation ends the child alone, and costs
the one sample that caused it. What the machine may have caused (no time, no memory, a kill) is tried a second
time, alone, before the sample is blamed.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.util import Finalize
from queue import LifoQueue
from typing import Any

from mm_embed_kernels.errors import ProcessFailure, SampleError
from mm_embed_kernels.identity import digest, environment_digest
from mm_embed_kernels.sandbox.answers import ANSWER_BYTES, BadAnswer
from mm_embed_kernels.sandbox.canary import Canary
from mm_embed_kernels.sandbox.child_process import (
    OUT_OF_MEMORY_EXIT,
    WALL_SECONDS,
    Child,
    ChildDied,
    ChildTimeout,
    refuse_children,
)
from mm_embed_kernels.sandbox.confinement import require_layers, required_layers
from mm_embed_kernels.sandbox.deaths import DeathCount
from mm_embed_kernels.sandbox.decoder_process import decoder_environment, enter_decoder

# Chunks of a batch for each of several children: one with slow items takes fewer chunks.
_CHUNKS_PER_CHILD = 4
# Own time of an item that is tried a second time, as a multiple of `item_seconds`.
_SECOND_TRY = 4.0
# Errors of the machine or its file systems; a decoder raises none of them about the bytes.
_MACHINE_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOSPC,
    errno.EROFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# In a child, which may open no file by name, these say that its decoder has tried to: it will do so again.
_CHILD_ERRORS = _MACHINE_ERRORS - {errno.EACCES, errno.ENOENT, errno.EROFS}


@dataclass(frozen=True)
class Limits:
    """Limits of a sandbox.

    Attributes:
        workers: number of children.
        memory_bytes: address space of a child.
        item_seconds: own time of an item, see `Stopwatch`; not the start of its child, nor the time in which
            a busy machine keeps it waiting.
        chunk_items: most items in one message to a child.
        chunk_bytes: most bytes in one message, unless a single item has more.
        wall_seconds: time of an item on the clock, as a far backstop.
        answer_bytes: most bytes of the answer to an item.
        file_bytes: most bytes of a file that an item hands over open for writing.
        require: layers of `confinement.LAYERS` without which no work starts, beside `required_layers`.
    """

    workers: int = 1
    memory_bytes: int = 4 << 30
    item_seconds: float = 30.0
    chunk_items: int = 32
    chunk_bytes: int = 8 << 20
    wall_seconds: float = WALL_SECONDS
    answer_bytes: int = ANSWER_BYTES
    file_bytes: int = 0
    require: tuple[str, ...] = ()

    @property
    def environment(self) -> str:
        """Digest of the limits and libraries; with others, the bytes of a permanent failure may pass."""
        limits = [str(self.memory_bytes), str(self.item_seconds)]
        if self.answer_bytes != ANSWER_BYTES:  # which earlier failures did not know
            limits.append(str(self.answer_bytes))
        return digest("limits", environment_digest(), *limits)[:16]


def call_guarded(
    function: Callable[..., Any], args: tuple[Any, ...], machine_errors: Collection[int] = _MACHINE_ERRORS
) -> Any:
    """Return ``function(*args)``, or what it raises as a `SampleError`.

    Args:
        machine_errors: numbers of errors that are the machine's, not the item's.

    Raises:
        ProcessFailure: of a sandbox that the function uses; it is no verdict on an item.
    """
    try:
        return function(*args)
    except SampleError as error:
        return error
    except ProcessFailure:
        raise
    except MemoryError:
        return SampleError(
            "memory_limit", "decoding asked for more memory than the sandbox allows", retryable=True
        )
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the cause becomes the event
        # FFmpeg's errors about broken media have classes of their own, derived from the builtin ones.
        if type(error).__module__ == "builtins" and getattr(error, "errno", None) in machine_errors:
            return SampleError("store_error", f"{type(error).__name__}: {error}", retryable=True)
        return SampleError("decode_error", f"{type(error).__name__}: {error}")


def _answer(function: Callable[..., Any], *args: Any) -> Any:
    """Return a child's answer to one item, or end the child where its memory is used up."""
    try:
        outcome = call_guarded(function, args, _CHILD_ERRORS)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        outcome = SampleError("decode_error", f"{type(error).__name__}: {error}")
    if isinstance(outcome, SampleError) and outcome.error_class == "memory_limit":
        os._exit(OUT_OF_MEMORY_EXIT)  # the memory that it still occupies must not fail the next items
    return outcome


@dataclass(frozen=True)
class _Unsettled:
    """The first try of an item, of whose end the machine or an earlier item may be the cause."""

    end: ChildDied | ChildTimeout | BadAnswer


class Sandbox:
    """Sandboxed children; threads may share it."""

    def __init__(self, limits: Limits) -> None:
        require_layers(dict.fromkeys((*required_layers(), *limits.require)))
        self.limits = limits
        self._children = [
            Child(
                enter_decoder,
                limits.memory_bytes,
                limits.file_bytes,
                environment=decoder_environment,
                answer_bytes=limits.answer_bytes,
            )
            for _ in range(limits.workers)
        ]
        # The child that worked last is taken first, so that few items start few children.
        self._idle: LifoQueue[Child] = LifoQueue()
        for child in self._children:
            self._idle.put(child)
        self._deaths = DeathCount()
        self._alone = threading.Lock()

    def map(
        self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]], canary: Canary = Canary()
    ) -> list[Any]:
        """Return ``function(*item)`` or a `SampleError` for each item, in order, computed inside the sandbox.

        The other items of a child that one of them kills are computed again, so that only this one fails.
        Second tries follow, one after the other.

        Args:
            function: picklable.
            items: its arguments, picklable.
            canary: asked where children die one after the other, to tell whether their items are the cause.

        Raises:
            ProcessFailure: when children do not start, or die one after the other and the canary does, too.
        """
        call = partial(_answer, function)
        try:
            outcomes = self._run_chunks(call, items, canary)
            for i, outcome in enumerate(outcomes):
                if isinstance(outcome, _Unsettled):
                    outcomes[i] = self._run_alone(call, items[i], outcome.end, canary)
        except ProcessFailure:
            self._deaths.clear()  # the next run has its own
            raise
        return outcomes

    def _run_chunks(
        self, call: Callable[..., Any], items: Sequence[tuple[Any, ...]], canary: Canary
    ) -> list[Any]:
        """Compute all items once, in several children."""
        outcomes: list[Any] = [None] * len(items)

        def fill(chunk: list[int]) -> None:
            chosen = [items[i] for i in chunk]
            for i, outcome in zip(chunk, self._run(call, chosen, canary), strict=True):
                outcomes[i] = outcome

        chunks = list(self._chunks(items))
        if len(chunks) == 1 or self.limits.workers == 1:
            for chunk in chunks:
                fill(chunk)
        else:
            with ThreadPoolExecutor(self.limits.workers) as threads:
                list(threads.map(fill, chunks))
        return outcomes

    def _run(self, call: Callable[..., Any], items: list[tuple[Any, ...]], canary: Canary) -> list[Any]:
        """Compute one chunk in one child."""
        limits, outcomes = self.limits, list[Any]()
        child = self._idle.get()
        try:
            while left := items[len(outcomes) :]:
                try:
                    for outcome in child.ask(call, left, limits.item_seconds, limits.wall_seconds):
                        self._deaths.add_answer()
                        outcomes.append(outcome)
                except (ChildDied, ChildTimeout, BadAnswer) as end:
                    outcomes.append(self._judge_first(end))
                    self._note_end(end, child, canary)
        finally:
            self._idle.put(child)
        return outcomes

    def _judge_first(self, end: ChildDied | ChildTimeout | BadAnswer) -> SampleError | _Unsettled:
        """Return the outcome of the item at which a child ended for the first time."""
        if isinstance(end, BadAnswer):
            return _Unsettled(end)  # an earlier item may have taken over the child
        if (
            isinstance(end, ChildTimeout)
            or end.outside
            or not end.fresh
            or end.exitcode == OUT_OF_MEMORY_EXIT
        ):
            return _Unsettled(end)
        return SampleError("decoder_crash", f"the decoder died with {end}")

    def _note_end(self, end: ChildDied | ChildTimeout | BadAnswer, child: Child, canary: Canary) -> None:
        """Count the end of a child; after too many, ask a canary whether the items are the cause.

        Raises:
            ProcessFailure: when the canary dies as well.
        """
        if not isinstance(end, BadAnswer) and self._deaths.add_death(end):
            if fault := canary.fault_in(child):
                raise self._deaths.failure(fault)
            self._deaths.add_answer()

    def _run_alone(
        self,
        call: Callable[..., Any],
        item: tuple[Any, ...],
        first: ChildDied | ChildTimeout | BadAnswer,
        canary: Canary,
    ) -> Any:
        """Compute an item in a new child with more time, while no other second try is computed."""
        seconds = _SECOND_TRY * self.limits.item_seconds
        with self._alone:
            child = self._idle.get()
            try:
                child.close()
                (answer,) = child.ask(call, [item], seconds, self.limits.wall_seconds)
            except BadAnswer as refused:
                return SampleError("bad_answer", f"the decoder's answer is refused: {refused}")
            except (ChildDied, ChildTimeout) as end:
                self._note_end(end, child, canary)
                return self._blame(first, end)
            finally:
                self._idle.put(child)
        self._deaths.add_answer()
        return answer

    def _blame(
        self, first: ChildDied | ChildTimeout | BadAnswer, second: ChildDied | ChildTimeout
    ) -> SampleError:
        """Return the error of an item at which two children ended.

        Where the machine may be the cause all the same it is retryable; the cache counts the runs.
        """
        if isinstance(second, ChildTimeout):
            before = f"{first.excess} and, alone, than " if isinstance(first, ChildTimeout) else ""
            return SampleError(
                "timeout", f"decoding took longer than {before}{second.excess}", retryable=True
            )
        if second.exitcode == OUT_OF_MEMORY_EXIT:
            limit = f"{self.limits.memory_bytes >> 20:,} MiB"
            return SampleError("memory_limit", f"decoding asked for more memory than {limit}", retryable=True)
        return SampleError("decoder_crash", f"the decoder died with {second}", retryable=second.outside)

    def _chunks(self, items: Sequence[tuple[Any, ...]]) -> Iterator[list[int]]:
        """Stream the places of the items of each message."""
        chunk: list[int] = []
        size = 0
        shares = self.limits.workers * (_CHUNKS_PER_CHILD if self.limits.workers > 1 else 1)
        most = max(1, min(self.limits.chunk_items, -(-len(items) // shares)))
        for i, item in enumerate(items):
            weight = sum(len(part) for part in item if isinstance(part, bytes))
            if chunk and (len(chunk) >= most or size + weight > self.limits.chunk_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(i)
            size += weight
        if chunk:
            yield chunk

    def close(self) -> None:
        """Kill all children."""
        for child in self._children:
            child.close()

    def close_at_exit(self) -> None:
        """Kill all children, and let no thread start another one."""
        refuse_children()
        self.close()


@cache
def shared_sandbox(limits: Limits) -> Sandbox:
    """Return the process's sandbox with these limits, which all kernels share; it is closed at exit."""
    sandbox = Sandbox(limits)
    # Not `atexit`, which children of multiprocessing (Dagster's run workers) skip: they would wait for the
    # sandbox's children without end.
    Finalize(sandbox, sandbox.close_at_exit, exitpriority=10)
    return sandbox
