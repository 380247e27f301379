"""Measure the peak memory that a call adds, in a child under the sandbox's address-space limit."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[Path], Any]


def measure(call: Call, path: Path, warm: Path) -> tuple[int, float, float, Any]:
    """Return (MiB before, MiB grown, seconds, result) of ``call(path)``, after a warm-up ``call(warm)``."""
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    child = spawn.Process(target=_measure, args=(call, path, warm, answer))
    child.start()
    measurement: tuple[int, float, float, Any] = answer.get(timeout=600)
    child.join()
    return measurement


def _measure(call: Call, path: Path, warm: Path, answer: Any) -> None:
    from mm_embed_kernels.sandbox.sandbox import Limits

    resource.setrlimit(resource.RLIMIT_AS, (Limits().memory_bytes, Limits().memory_bytes))
    call(warm)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    value = call(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answer.put((before // 1024, grown / 1024, time.perf_counter() - began, value))
