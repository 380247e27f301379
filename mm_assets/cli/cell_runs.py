"""TODO."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mm_assets.cli.output import print_table

if TYPE_CHECKING:
    from mm_assets.operations.backfill import CellResult
    from mm_resources.cell import Cell
    from mm_resources.storage.store import Store
    from mm_resources.tables.failure_events import FailureFilter


def require_models(store: Store, cells: list[Cell]) -> None:
    """A model that cannot be had is one clear line before any run starts."""
    from mm_embed_kernels.modalities import get
    from mm_resources.registry.registry import Registry
    from mm_resources.resources import default_embedder

    for cell in cells:
        default_embedder(get(cell.modality)).require(
            Registry(store).spec(cell.dataset, cell.version), cell.modality
        )


def run_cells(
    store: Store,
    cells: list[Cell],
    override: str,
    verbose: bool,
    quiet: bool,
    redrive: FailureFilter | None = None,
    **settings: str,
) -> list[CellResult]:
    from mm_assets.definitions import build
    from mm_assets.operations.backfill import backfill_cell
    from mm_assets.operations.dagster_home import close_dead_runs, open_instance
    from mm_embed_kernels.errors import Interrupted
    from mm_resources.compute.progress import listening
    from mm_resources.settings import Settings

    instance = open_instance(Settings.from_environment())
    for run_id in close_dead_runs(instance):
        print(f"run {run_id[:8]} had died; it is marked as failed", file=sys.stderr)
    definitions = build(**settings)
    results = []
    with _noticed(signal.SIGINT) as interrupted, _stopped():
        for cell in cells:
            with _Bar(cell, hidden=quiet or verbose) as bar, listening(bar.report):
                results.append(backfill_cell(instance, definitions, cell, store, override, verbose, redrive))
            if interrupted():
                raise Interrupted
    return results


@contextmanager
def _stopped() -> Iterator[None]:
    """Typer ends at a KeyboardInterrupt without a word; this one is said."""
    from mm_embed_kernels.errors import Interrupted

    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@contextmanager
def _noticed(wanted: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Tells whether a signal has come, whatever became of the exception that it raised: raised inside a query or a
    decoder, it may come back as a failed step.
    """
    ours, pythons = socket.socketpair()
    ours.setblocking(False)
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def seen() -> bool:
        try:
            return wanted in ours.recv(4096)
        except BlockingIOError:
            return False

    try:
        yield seen
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        pythons.close()


class _Bar:
    """A progress bar over a cell's stages, with rate and time left inside a kernel."""

    def __init__(self, cell: Cell, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(
            *columns, console=console, disable=hidden or not console.is_terminal, transient=True
        )
        self.stages = self.progress.add_task(f"{cell.partition_key}", total=12, rate="")
        self.kernel = self.progress.add_task("", total=1, visible=False, rate="")
        self.current = ""

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        if total == 0:
            self.progress.update(self.stages, description=what, advance=1 if self.current else 0)
            self.progress.update(self.kernel, visible=False)
            self.current = what
            return
        task = self.progress.tasks[1]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self.progress.update(
            self.kernel, description=f"  {what}", completed=done, total=total, visible=True, rate=rate
        )


def print_results(dataset_version: str, results: list[CellResult]) -> None:
    print_table(
        dataset_version,
        [{**result.as_dict(), "run_id": result.run_id[:8]} for result in results],
        ["modality", "status", "computed", "reused", "seconds", "run_id"],
    )
    for result in results:
        if result.status in ("blocked", "failed"):
            print(f"{result.modality} is {result.status}: {result.reason}")
        for note in result.notes:
            print(f"{result.modality}: {note}")
    if all(result.status == "unchanged" for result in results):
        print("nothing changed: nothing was computed, and what is published stays")
    elif any(result.status == "blocked" for result in results):
        print(
            f"nothing new is published of it, and what was published before stays; see: mm failures {dataset_version}"
        )
    else:
        print(f"next: mm status {dataset_version}")
