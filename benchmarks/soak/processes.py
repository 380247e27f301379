"""Commands in processes of their own, with a signal at a boundary, a wrong clock or a bound on file sizes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import psutil

from tests.faults.victim import PRELOAD, Fault, Victim, command

_SAMPLE_SECONDS = 2.0
_PACKAGES = ("mm_assets", "mm_resources", "mm_embed_kernels")
# Lines with which a command says why it failed, one for each cell.
_REASON = re.compile(r"^(?:error: |\w+ is (?:failed|blocked): )(.*)$", re.MULTILINE)


@dataclass
class Trouble:
    """What befalls a command.

    Attributes:
        at: boundary before which it kills itself, counted from 1; 0 for none.
        after: seconds after which it is killed; 0 for none.
        clock: seconds by which its clock is ahead; negative where it is behind.
        file_bytes: size that no file may exceed; 0 for any size.
        room: bytes that are left on the store's disk; -1 for all.
        outage: seconds for which the store's server is away, once the command has begun; 0 for none.
    """

    at: int = 0
    after: float = 0.0
    clock: float = 0.0
    file_bytes: int = 0
    room: int = -1
    outage: float = 0.0

    @property
    def kills(self) -> bool:
        """Return whether the command may be killed."""
        return bool(self.at or self.after)

    @property
    def fails(self) -> bool:
        """Return whether the command may fail for want of its store."""
        return bool(self.file_bytes or self.outage or self.room >= 0)


@dataclass
class Command:
    """A started command and what is known of it."""

    words: list[str]
    victim: Victim
    trouble: Trouble
    began: float = field(default_factory=time.monotonic)

    def kill_if_due(self) -> None:
        """Kill it when its time is over."""
        due = self.trouble.after and time.monotonic() - self.began > self.trouble.after
        if due and self.victim.code is None:
            # The fork server knows of an end before this process does.
            with suppress(ProcessLookupError):
                os.kill(self.victim.pid, signal.SIGKILL)

    @property
    def reasons(self) -> list[str]:
        """The lines that say why it failed."""
        return _REASON.findall(self.victim.text)


class Runner:
    """Starts commands on one store and one Dagster home."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = root, environment
        self.started = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD, "benchmarks.soak.processes"])

    def start(self, words: list[str], trouble: Trouble) -> Command:
        """Start ``mm WORDS``."""
        self.started += 1
        output = self.root / f"output-{self.started:05d}.txt"
        output.touch()
        fault = Fault(trouble.at) if trouble.at else None
        given = (words, self.environment, output, self.root / "journal.jsonl", fault, trouble)
        process = self._context.Process(target=_run, args=given)
        process.start()
        return Command(words, Victim(process, output), trouble)


def _run(
    words: list[str],
    environment: dict[str, str],
    output: Path,
    journal: Path,
    fault: Fault | None,
    trouble: Trouble,
) -> None:
    """Run a command in this process."""
    if trouble.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.file_bytes, trouble.file_bytes))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if trouble.clock:
        _shift_clock(trouble.clock)
    command(words, environment, output, journal, fault, 8)


def _shift_clock(seconds: float) -> None:
    """Shift the clock that the packages and Dagster read.

    That of the kernel stays, by which files and the versions of Lance get their times: as of a machine whose
    clock differs from that of its store.
    """
    real_time, real_ns = time.time, time.time_ns
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Shifted(datetime, metaclass=Meta):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=seconds)

    for package in _PACKAGES:
        for item in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            # Those that need an optional library, or torch, have no clock.
            if item.name.split(".")[-1] not in ("__main__", "loader"):
                importlib.import_module(item.name)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in (*_PACKAGES, "dagster"):
            for key, value in list(vars(module).items()):
                if value is datetime:
                    setattr(module, key, Shifted)


@dataclass
class Reader:
    """A reading process.

    Attributes:
        samples: its memory (bytes) and descriptors, every two seconds from its warm-up on.
    """

    pid: int
    ended: Any
    answers: Any
    samples: list[tuple[int, int]] = field(default_factory=list)

    def end(self) -> dict[str, int]:
        """End it, and return what it has counted."""
        self.ended.set()
        if not self.answers.poll(300):
            return {"WRONG no answer": 1}
        try:
            counts: dict[str, int] = self.answers.recv()
        except EOFError:
            return {"WRONG the process has ended": 1}
        return counts


@contextmanager
def reader(target: Any, *words: Any) -> Iterator[Reader]:
    """Start a reading process, whose arguments are `words`, two events (warm, ended) and a pipe."""
    context = multiprocessing.get_context("spawn")
    warm, ended = context.Event(), context.Event()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*words, warm, ended, theirs), daemon=True)
    process.start()
    started = Reader(int(process.pid or 0), ended, ours)
    watched = psutil.Process(started.pid)

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS) and process.is_alive():
            if warm.is_set():
                started.samples.append((watched.memory_info().rss, watched.num_fds()))

    threading.Thread(target=sample, daemon=True).start()
    try:
        yield started
    finally:
        ended.set()
        process.join(60)
        if process.is_alive():
            process.kill()
