"""Run `mm` commands in processes that kill or stop themselves at a commit boundary.

The primitives that make anything durable are wrapped from outside; the packages have no test hooks. A boundary is one
call of such a primitive, counted from 1 in the order of the process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

# Modules that a fork need not import again; of Lance and torch only those that start no threads.
PRELOAD = [
    "mm_assets.definitions",
    "mm_assets.cli.main",
    "mm_assets.operations.backfill",
    "mm_assets.operations.dagster_home",
    "mm_assets.cells.publication",
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "lance",
    "lance_namespace",
    "pandera.backends.polars.builtin_checks",
    "pandera.polars",
    "sentence_transformers",
    "tests.faults.victim",
]
# Boundaries that a finished run passes again: a row of the ledger, a check of the sources, the tags of a pin. Every
# other boundary is progress.
ADVANCING = r"(?!\w+ ledger|write registry/drift|tag (stages|failures)|remove )"
CHECKPOINT_ROWS = 4
_HASH = re.compile(r"[0-9a-f]{24,}(?:-[a-z]+)?|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Fault:
    """The signal that a process sends to itself, and when.

    Attributes:
        at: the boundary, from 1; among those whose label matches `label`.
        side: ``before`` or ``after`` the primitive.
        label: a regular expression, see `Boundaries.label`; "" takes every boundary.
        signal: SIGKILL or SIGSTOP.
    """

    at: int = 1
    side: str = "before"
    label: str = ""
    signal: int = signal.SIGKILL


@dataclass
class Boundaries:
    """Count boundaries, log them in a journal, and send the signal of the fault."""

    journal: Path
    store: str
    fault: Fault | None
    passed: int = 0
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        self._file = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def label(self, primitive: str, place: str) -> str:
        """Return the primitive and its place in the store, without hashes and run ids: ``append cache/probe-text/*.lance``."""
        inside = place.removeprefix(self.store).lstrip("/")
        return f"{primitive} {_HASH.sub('*', inside)}"

    def __call__(self, primitive: str, place: str, rows: int, call: Callable[[], Any]) -> Any:
        label = self.label(primitive, place)
        counted = self.fault is not None and re.match(self.fault.label, label) is not None
        self.passed += counted
        number = self.passed
        self._note("before", label, rows)
        if counted:
            self._strike("before", number)
        result = call()
        self._note("after", label, rows)
        if counted:
            self._strike("after", number)
        return result

    def _note(self, side: str, label: str, rows: int) -> None:
        line = json.dumps({"pid": os.getpid(), "side": side, "label": label, "rows": rows})
        os.write(self._file, f"{line}\n".encode())

    def _strike(self, side: str, number: int) -> None:
        assert self.fault is not None
        if (side, number) == (self.fault.side, self.fault.at):
            os.kill(os.getpid(), self.fault.signal)


def wrap(boundary: Boundaries) -> None:
    """Put a boundary around every commit primitive of this process."""
    from mm_resources.features import vector_indexes
    from mm_resources.lineages import commits
    from mm_resources.storage import dataset_versions, lance_datasets
    from mm_resources.storage.file_hashes import FOLDER
    from mm_resources.storage.store import Store

    def around(
        owner: Any, name: str, place: Callable[..., str], rows: Callable[..., int] = lambda *_: 0
    ) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if place(*args).startswith(FOLDER):
                # The hash of a file that nothing names yet: a kill here is one before the commit.
                return real(*args, **kwargs)
            return boundary(name, place(*args), rows(*args), lambda: real(*args, **kwargs))

        setattr(owner, name, wrapped)

    for name in ("commit", "create", "delete"):
        around(lance_datasets, name, lambda uri, *_: uri)
    for name in ("write_files", "restore", "update", "extend_indexes"):
        around(commits, name, lambda uri, *_: uri)
    around(dataset_versions, "tag", lambda uri, *_: uri)
    around(lance_datasets, "append", lambda uri, *_: uri, lambda uri, table: table.num_rows)
    for name in ("write", "create"):
        around(Store, name, lambda store, name, *_: name)
    around(Store, "adopt", lambda store, temporary, name: name)
    around(Store, "remove", lambda store, name: name)
    around(vector_indexes, "build", lambda table, *_: f"features/{table.name}.lance")


class _Capped:
    """`Resources.batch_rows` with an upper bound, in existing instances too."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __get__(self, instance: Any, owner: type) -> int:
        return min(self.most, instance.__dict__["batch_rows"])

    def __set__(self, instance: Any, value: int) -> None:
        instance.__dict__["batch_rows"] = value


def small_checkpoints(rows: int) -> None:
    """Limit checkpoints to a few rows in two blocks each, so that a small cell has several in each kernel."""
    from mm_embed_kernels.kernels.base import Kernel, Resources

    Resources.batch_rows = _Capped(rows // 2)  # type: ignore[assignment]
    Kernel.checkpoint_rows = rows


def draw_nothing() -> None:
    """Draw no plots, which take half of the time of a small cell and commit nothing of their own."""
    from mm_assets.cells import publication

    publication.DRAWN_SAMPLES = sys.maxsize


def command(
    words: list[str], environment: dict[str, str], output: Path, journal: Path, fault: Fault | None, rows: int
) -> None:
    """Run ``mm WORDS`` in this process, with its output in a file."""
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.update(environment)
    small_checkpoints(rows)
    draw_nothing()
    wrap(Boundaries(journal, environment["MM_STORE"], fault))
    from mm_assets.cli.main import main

    sys.argv = ["mm", *words]
    main()


@dataclass
class Victim:
    """A started command."""

    process: BaseProcess
    output: Path

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8")

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def join(self, seconds: float = 240) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.kill()
            raise AssertionError(f"it did not end within {seconds:.0f} s: {self.text}")
        return code

    def until_stopped(self) -> bool:
        """Wait until it has stopped itself; return False when it ended before."""
        watched = psutil.Process(self.pid)
        while self.process.exitcode is None:
            if watched.status() == psutil.STATUS_STOPPED:
                return True
            self.process.join(0.05)
        return False

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process.exitcode is None:
            # The fork server knows of an end before this process does.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.process.join()


_started: list[Victim] = []


def running() -> list[Victim]:
    """The commands that have not ended."""
    return [victim for victim in _started if victim.code is None]


@contextmanager
def lend_copy(home: Home, root: Path) -> Iterator[Home]:
    """Lend a copy of a home; its commands are ended, and it is removed, at the end of the block."""
    lent = home.copy(root)
    try:
        yield lent
    finally:
        for victim in running():
            victim.kill()
        shutil.rmtree(lent.root)


class Home:
    """A store and a Dagster home in which commands run, with checkpoints of a few rows."""

    _context = multiprocessing.get_context("forkserver")

    def __init__(
        self,
        root: Path,
        store: Path | str | None = None,
        checkpoint_rows: int = CHECKPOINT_ROWS,
        more: dict[str, str] | None = None,
    ) -> None:
        self.root, self.checkpoint_rows, self.more = root, checkpoint_rows, more or {}
        root.mkdir(parents=True, exist_ok=True)
        self.store = str(store or root / "store")
        self.journal = root / "journal.jsonl"
        self.started = 0
        self._context.set_forkserver_preload(PRELOAD)

    def copy(self, root: Path) -> Home:
        """Copy the state below another root; Dagster's home and the store contain no absolute paths of their own."""
        shutil.copytree(self.root, root)
        return Home(root)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MM_STORE": self.store,
            "DAGSTER_HOME": str(self.root / "home"),
            "MM_DATASETS": str(self.root / "datasets"),
            "MM_PROFILE": "bundled",
            **self.more,
        }

    def start(self, *words: str, fault: Fault | None = None) -> Victim:
        self.started += 1
        output = self.root / f"output-{self.started}.txt"
        output.touch()
        given = (list(words), self.environment, output, self.journal, fault, self.checkpoint_rows)
        process = self._context.Process(target=command, args=given)
        process.start()
        victim = Victim(process, output)
        _started.append(victim)
        return victim

    def mm(self, *words: str, fault: Fault | None = None) -> Victim:
        """Run a command to its end, however it ends."""
        victim = self.start(*words, fault=fault)
        victim.join()
        return victim

    def passed(self) -> list[dict[str, Any]]:
        """Return the lines of the journal: every boundary that a process reached, and those that it passed."""
        return [json.loads(line) for line in self.journal.read_text("utf-8").splitlines()]
