"""What work takes: CPU and GPU seconds, bytes, memory.

Bytes and GPU seconds are counted where they are spent, in this process (`count`). CPU seconds and memory are read from the
operating system, of this process and all its descendants: sandboxed children, models in processes of their own, the workers
of a Ray cluster that was started here. Workers elsewhere send what they have used with their results (see `ray_session`).
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import psutil

# How often descendants are looked at while something is measured: a process that ends in between has used so much more at most.
SAMPLED_SECONDS = 0.5


@dataclass(frozen=True)
class Usage:
    """What a stretch of work has used.

    Attributes:
        cpu_seconds: user and system time of the process and its descendants.
        gpu_seconds: wall seconds that stages asking for GPUs were at work, times the GPUs that they ask for.
        bytes_read: of blobs, and of the sources that are fetched.
        bytes_written: of blobs, stage tables, feature tables and the compute cache.
        bytes_transferred: those of `bytes_read` that came from a source beyond this machine.
    """

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_transferred: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(operator.sub, vars(self).values(), vars(other).values()))


NOTHING = Usage()
_lock = threading.Lock()
_counted = NOTHING


def count(**used: float) -> None:
    """Add to what this process has used; the names are those of `Usage`."""
    global _counted
    with _lock:
        _counted = _counted + Usage(**used)  # type: ignore[arg-type]


@contextmanager
def on_gpus(gpus: float) -> Iterator[None]:
    """Count the time of the block for so many GPUs."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if gpus:
            count(gpu_seconds=gpus * (time.perf_counter() - began))


def so_far() -> Usage:
    """What this process has used since some moment in the past: for differences."""
    with _lock:
        counted = _counted
    return counted + Usage(cpu_seconds=_processes().look())


class Meter:
    """Measures from when it is made to when it is asked.

    Attributes:
        peak_bytes: the largest sum, among looks twice a second, of the resident memory of this process and its descendants
            that is theirs alone: pages that they share with files or each other (libraries, Ray's object store) are left out.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        _processes().add(self)
        self._began = so_far()

    def used(self) -> Usage:
        return so_far() - self._began

    def close(self) -> None:
        """Stop looking at memory; a meter that nobody holds any more is closed."""
        _processes().meters.discard(self)


@cache
def _processes() -> _Processes:
    return _Processes()


class _Processes:
    """This process and its descendants, looked at by a thread as long as there are meters."""

    def __init__(self) -> None:
        self.meters: WeakSet[Meter] = WeakSet()
        self._lock = threading.Lock()
        self._seconds: dict[psutil.Process, float] = {}
        self._gone = 0.0
        self._thread: threading.Thread | None = None

    def add(self, meter: Meter) -> None:
        self.meters.add(meter)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._watch, name="mm-metering", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while self.meters:
            self.look()
            time.sleep(SAMPLED_SECONDS)

    def look(self) -> float:
        """CPU seconds of all processes that were ever seen, as they were last seen."""
        import psutil

        with self._lock:
            mine, seconds, memory = psutil.Process(), {}, 0
            for process in (mine, *mine.children(recursive=True)):
                with suppress(psutil.Error), process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info()
                    seconds[process] = times.user + times.system
                    memory += resident.rss - resident.shared
            self._gone += sum(spent for process, spent in self._seconds.items() if process not in seconds)
            self._seconds = seconds
            for meter in list(self.meters):
                meter.peak_bytes = max(meter.peak_bytes, memory)
            return self._gone + sum(seconds.values())
