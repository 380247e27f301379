"""Run a command in a process of its own and measure the peak memory of its process tree."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

SAMPLED_SECONDS = 0.25


@dataclass(frozen=True)
class Run:
    """Time, memory and output of a command.

    Attributes:
        seconds: wall time.
        peak_mib: largest sum over the tree of proportional set sizes (shared pages count once), in MiB.
        output: standard output.
    """

    seconds: float
    peak_mib: float
    output: str


def run(command: list[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command until it ends, with `environment` on top of this process's own.

    Raises:
        RuntimeError: if it fails; the message has the tail of its output.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {output[-3_000:]}")
    return Run(time.perf_counter() - began, peak[0], output)


def _watch(pid: int, peak: list[float]) -> None:
    while psutil.pid_exists(pid):
        try:
            tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], sum(_proportional(process.pid) for process in tree))
        time.sleep(SAMPLED_SECONDS)


def _proportional(pid: int) -> float:
    """Return the proportional set size of a process in MiB; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0.0
