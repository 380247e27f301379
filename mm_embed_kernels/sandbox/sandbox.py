"""Untrusted bytes are opened only here: in reused, spawned children with limits on memory and time.

A crash, a hang or a balloon kills the child alone and costs the one sample that caused it.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.util import Finalize
from queue import LifoQueue
from typing import Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import digest, environment_digest
from mm_embed_kernels.sandbox.child_process import (
    OUT_OF_MEMORY_EXIT,
    Child,
    ChildDied,
    ChildTimeout,
    die_with_parent,
    forget_environment,
    silence_output,
)

_KEPT_ENVIRONMENT = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "OPENBLAS_CORETYPE",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)

# Chunks that each of several children gets of a batch: who has the slow items gets fewer of the others.
_SHARES = 4

# What the machine or a file system says, and no decoder about the bytes.
_OF_THE_MACHINE = {
    getattr(errno, name)
    for name in (
        "EACCES",
        "EDQUOT",
        "EIO",
        "EMFILE",
        "ENFILE",
        "ENOENT",
        "ENOSPC",
        "EROFS",
        "ESTALE",
        "ETIMEDOUT",
    )
}


@dataclass(frozen=True)
class Limits:
    """Limits of one sandbox: workers, bytes of address space per worker, seconds per sample, samples per message."""

    workers: int = 1
    memory_bytes: int = 4 << 30
    item_seconds: float = 30.0
    chunk_items: int = 32
    chunk_bytes: int = 8 << 20

    @property
    def environment(self) -> str:
        """What a permanent failure is permanent for: with higher limits, or other libraries, the same bytes may pass."""
        return digest("limits", environment_digest(), str(self.memory_bytes), str(self.item_seconds))[:16]


def _enter(memory_bytes: int) -> None:
    """First thing in a child: die with the parent, say nothing, forget its secrets, one thread, bounded memory."""
    die_with_parent()
    silence_output()
    forget_environment(_KEPT_ENVIRONMENT, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def call_guarded(function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
    """One call; whatever it raises comes back as a `SampleError` value."""
    try:
        return function(*item)
    except SampleError as error:
        return error
    except MemoryError:
        return SampleError("memory_limit", "decoding asked for more memory than the sandbox allows")
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the cause is kept in the event
        # FFmpeg's codes for broken media have classes of their own, which derive from these.
        if type(error).__module__ == "builtins" and getattr(error, "errno", None) in _OF_THE_MACHINE:
            return SampleError("store_error", f"{type(error).__name__}: {error}", retryable=True)
        return SampleError("decode_error", f"{type(error).__name__}: {error}")


def _answer(function: Callable[..., Any], *item: Any) -> Any:
    """What a child says of one item."""
    try:
        outcome = call_guarded(function, item)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        outcome = SampleError("decode_error", f"{type(error).__name__}: {error}")
    if isinstance(outcome, SampleError) and outcome.error_class == "memory_limit":
        os._exit(OUT_OF_MEMORY_EXIT)  # what it holds must not fail its neighbours
    return outcome


class Sandbox:
    """Sandboxed children. `map` keeps order and returns a value or a `SampleError` for each item; threads may share it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._children = [Child(_enter, limits.memory_bytes) for _ in range(limits.workers)]
        # The last that worked goes first: few items start few children.
        self._idle: LifoQueue[Child] = LifoQueue()
        for child in self._children:
            self._idle.put(child)

    def map(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call ``function(*item)`` for each item inside the sandbox.

        What works beside an item that kills its child is called again, so that only the guilty item fails.
        """
        outcomes: list[Any] = [None] * len(items)

        def fill(chunk: list[int]) -> None:
            for i, outcome in zip(chunk, self._run(function, [items[i] for i in chunk]), strict=True):
                outcomes[i] = outcome

        chunks = list(self._chunks(items))
        if len(chunks) == 1 or self.limits.workers == 1:
            for chunk in chunks:
                fill(chunk)
        else:
            with ThreadPoolExecutor(self.limits.workers) as threads:
                list(threads.map(fill, chunks))
        return outcomes

    def _run(self, function: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
        """One chunk in one child."""
        call = partial(_answer, function)
        outcomes: list[Any] = []
        child = self._idle.get()
        try:
            while left := items[len(outcomes) :]:
                try:
                    for outcome in child.ask(call, left, self.limits.item_seconds):
                        outcomes.append(outcome)
                except (ChildDied, ChildTimeout) as end:
                    outcomes.append(self._verdict(child, call, items[len(outcomes)], end))
        finally:
            self._idle.put(child)
        return outcomes

    def _verdict(
        self, child: Child, call: Callable[..., Any], item: tuple[Any, ...], end: ChildDied | ChildTimeout
    ) -> Any:
        """What is said of the item that a child died of; one that had company before is heard once more, alone."""
        if isinstance(end, ChildDied) and not end.fresh:
            try:
                (answer,) = child.ask(call, [item], self.limits.item_seconds)
                return answer
            except (ChildDied, ChildTimeout) as again:
                end = again
        if isinstance(end, ChildTimeout):
            return SampleError("timeout", f"decoding took longer than {self.limits.item_seconds:g} s")
        if end.exitcode == OUT_OF_MEMORY_EXIT:
            return SampleError(
                "memory_limit", f"decoding asked for more memory than {self.limits.memory_bytes >> 20:,} MiB"
            )
        return SampleError("decoder_crash", f"the decoder died with {end}")

    def _chunks(self, items: Sequence[tuple[Any, ...]]) -> Iterator[list[int]]:
        chunk: list[int] = []
        size = 0
        shares = self.limits.workers * (_SHARES if self.limits.workers > 1 else 1)
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
        for child in self._children:
            child.close()


@cache
def shared_sandbox(limits: Limits) -> Sandbox:
    """One sandbox per process and limits, reused by every kernel and closed at exit."""
    sandbox = Sandbox(limits)
    # Not `atexit`, which children of multiprocessing (Dagster's run workers are) pass by: they would wait for ours for ever.
    Finalize(sandbox, sandbox.close, exitpriority=10)
    return sandbox
