"""UsageMeter work: CPU and GPU seconds, bytes, memory.

Bytes and GPU seconds are counted where they are spent, in this process (`count`). CPU seconds and memory are
read from the operating system, of this process and all its descendants: sandboxed children, models in
processes of their own, the workers of a Ray cluster that was started here. Other workers send their usage
with their results (see `ray_session`).
"""

from __future__ import annotations

import operator
import os
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

# Interval at which descendants are sampled, seconds: of a process that ends in between, at most so much CPU
# time is missing.
SAMPLED_SECONDS = 0.5


@dataclass(frozen=True)
class Usage:
    """Resources used in a period.

    Attributes:
        cpu_seconds: user and system time of the process and its descendants.
        gpu_seconds: wall seconds of stages with GPUs, times their GPU count.
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


ZERO = Usage()
_lock = threading.Lock()
_counted = ZERO


def count(**used: float) -> None:
    """Add to the usage of this process; the names are those of `Usage`."""
    global _counted
    with _lock:
        _counted = _counted + Usage(**used)  # type: ignore[arg-type]


@contextmanager
def count_gpu_time(gpus: float) -> Iterator[None]:
    """Count the time of the block for a number of GPUs."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if gpus:
            count(gpu_seconds=gpus * (time.perf_counter() - began))


def usage_so_far() -> Usage:
    """The usage of this process since an arbitrary moment; take differences of it."""
    with _lock:
        counted = _counted
    return counted + Usage(cpu_seconds=_processes().sample())


class UsageMeter:
    """Measures the usage of this process from its construction on.

    Attributes:
        peak_bytes: the largest private memory of this process and its descendants, among samples twice a
            second; without pages that they share with files or each other (libraries, Ray's object store).
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        _processes().add(self)
        self._began = usage_so_far()

    def usage(self) -> Usage:
        return usage_so_far() - self._began

    def close(self) -> None:
        """Stop sampling memory; a meter that is garbage-collected is closed, too."""
        _processes().meters.discard(self)


@cache
def _processes() -> _Processes:
    return _Processes()


class _Processes:
    """This process and its descendants, sampled by a thread as long as there are meters."""

    def __init__(self) -> None:
        self.meters: WeakSet[UsageMeter] = WeakSet()
        self._lock = threading.Lock()
        self._seconds: dict[psutil.Process, float] = {}
        self._gone = 0.0
        self._thread: threading.Thread | None = None

    def add(self, meter: UsageMeter) -> None:
        self.meters.add(meter)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._watch, name="mm-metering", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while self.meters:
            self.sample()
            time.sleep(SAMPLED_SECONDS)

    def sample(self) -> float:
        """Sample all processes; return the CPU seconds of all that were ever seen, each as last sampled."""
        import psutil

        with self._lock:
            mine, seconds, memory = psutil.Process(), {}, 0
            for process in (mine, *_descendants(mine)):
                with suppress(psutil.Error), process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info()
                    seconds[process] = times.user + times.system
                    memory += resident.rss - resident.shared
            self._gone += sum(spent for process, spent in self._seconds.items() if process not in seconds)
            self._seconds = seconds
            for meter in list(self.meters):
                meter.peak_bytes = max(meter.peak_bytes, memory)
            return self._gone + sum(seconds.values())


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return the children of a process, their children, and so on.

    Linux lists the children of each thread; psutil looks at all processes of the machine instead, which took
    a twentieth of a short run.
    """
    import psutil

    found, waiting = [], [process.pid]
    try:
        while waiting:
            for pid in _children(waiting.pop()):
                waiting.append(pid)
                with suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(pid))
    except FileNotFoundError:  # a kernel without these lists
        return process.children(recursive=True)
    return found


def _children(pid: int) -> list[int]:
    """Return the processes that the threads of a process have started; none of a process that has ended.

    Raises:
        FileNotFoundError: where the kernel does not list them.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        if os.path.isdir(f"/proc/{os.getpid()}/task"):
            return []
        raise
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as stream:
                found += map(int, stream.read().split())
        except FileNotFoundError:
            if os.path.isdir(f"/proc/{pid}/task/{thread}"):
                raise
        except ProcessLookupError:
            continue
    return found
