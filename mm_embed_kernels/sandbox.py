"""Untrusted bytes are opened only here: in reused, spawned children with limits on memory and time.

A crash, a hang or a balloon kills the child alone and costs the one sample that caused it. The process pool is
Pebble's, which restarts a dead or late worker by itself.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from typing import Any

from pebble import ProcessExpired, ProcessPool

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import digest, environment_digest

_KEPT_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = 86


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
    """First thing in a child: die with the parent, forget its secrets, one thread, bounded memory, no core file."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def guarded(function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
    """One call; whatever it raises comes back as a `SampleError` value."""
    try:
        return function(*item)
    except SampleError as error:
        return error
    except MemoryError:
        return SampleError("memory_limit", "decoding asked for more memory than the sandbox allows")
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the cause is kept in the event
        return SampleError("decode_error", f"{type(error).__name__}: {error}")


def _run_chunk(function: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    outcomes = []
    for item in items:
        try:
            outcome = guarded(function, item)
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            outcome = SampleError("decode_error", f"{type(error).__name__}: {error}")
        if isinstance(outcome, SampleError) and outcome.error_class == "memory_limit":
            os._exit(_OUT_OF_MEMORY)  # what it holds must not fail its neighbours
        outcomes.append(outcome)
    return outcomes


class Sandbox:
    """A pool of sandboxed children. `map` keeps order and returns a value or a `SampleError` for each item.

    Children die with the thread that first calls `map` (Linux's PDEATHSIG knows threads, not processes): call it from one that lasts.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pool = ProcessPool(
            max_workers=limits.workers,
            initializer=_enter,
            initargs=[limits.memory_bytes],
            context=multiprocessing.get_context("spawn"),
        )

    def map(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call ``function(*item)`` for each item inside the sandbox.

        A chunk whose worker dies or is late is repeated item by item, so that only the guilty item fails.
        """
        outcomes: list[Any] = [None] * len(items)
        chunks = list(self._chunks(items))
        futures = [self._submit(function, [items[i] for i in chunk], len(chunk)) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                results = future.result()
            except (Late, ProcessExpired):
                results = [self._alone(function, items[i]) for i in chunk]
            for i, outcome in zip(chunk, results, strict=True):
                outcomes[i] = outcome
        return outcomes

    def _alone(self, function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
        try:
            return self._submit(function, [item], 1).result()[0]
        except Late:
            return SampleError("timeout", f"decoding took longer than {self.limits.item_seconds:g} s")
        except ProcessExpired as error:
            code = error.exitcode
            if code == _OUT_OF_MEMORY:
                return SampleError("memory_limit", f"decoding asked for more memory than {self.limits.memory_bytes >> 20:,} MiB")
            name = signal.Signals(-code).name if isinstance(code, int) and code < 0 else f"exit code {code}"
            return SampleError("decoder_crash", f"the decoder died with {name}")

    def _submit(self, function: Callable[..., Any], items: list[tuple[Any, ...]], count: int) -> Any:
        return self._pool.schedule(_run_chunk, args=[function, items], timeout=self.limits.item_seconds * max(1, count / 8))

    def _chunks(self, items: Sequence[tuple[Any, ...]]) -> Iterator[list[int]]:
        chunk: list[int] = []
        size = 0
        most = max(1, min(self.limits.chunk_items, -(-len(items) // self.limits.workers)))
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
        self._pool.stop()
        self._pool.join(timeout=5)


@cache
def shared_sandbox(limits: Limits) -> Sandbox:
    """One sandbox per process and limits, reused by every kernel and closed at exit."""
    sandbox = Sandbox(limits)
    # Not `atexit`, which children of multiprocessing (Dagster's run workers are) pass by: they would wait for ours for ever.
    Finalize(sandbox, sandbox.close, exitpriority=10)
    return sandbox
