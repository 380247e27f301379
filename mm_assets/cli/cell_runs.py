"""Runs of cells from the command line, with a progress bar, and their results as a table."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mm_assets.cli.output import print_table, say
from mm_embed_kernels.errors import Interrupted

if TYPE_CHECKING:
    from mm_assets.operations.backfill import CellResult
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell
    from mm_resources.tables.failure_events import FailureFilter


def require_models(catalog: Catalog, cells: list[Cell]) -> None:
    """Check, before any run starts, that the models of the cells are available.

    Raises:
        UserError: for a model that is not.
    """
    from mm_embed_kernels.modalities import get
    from mm_resources.work_settings import default_models

    for cell in cells:
        spec = catalog.registry.spec(cell.dataset, cell.version)
        default_models(get(cell.modality)).require(spec, cell.modality)


def run_cells(
    catalog: Catalog,
    cells: list[Cell],
    override: str,
    verbose: bool,
    quiet: bool,
    redrive: FailureFilter | None = None,
    **settings: str,
) -> list[CellResult]:
    """Backfill cells one after the other in this process; without Dagster where nothing is to be done.

    Args:
        override: reason for which closed gates are overridden; "" for none.
        verbose: print Dagster's log instead of a progress bar.
        quiet: draw no progress bar.
        redrive: failures to retry, instead of all retryable ones.
        settings: of `definitions.build`.

    Raises:
        Interrupted: after a Ctrl-C or a SIGTERM.
    """
    from mm_assets.unchanged_cells import find_unchanged
    from mm_resources.compute.progress import listen

    # A reason, a redrive, Dagster's log and a cluster are for runs.
    is_plain = not (override or redrive or verbose or settings.get("address"))
    with _watch_signals(signal.SIGINT, signal.SIGTERM) as interruption, _reraise_interrupts():
        run, results = None, []
        for cell in cells:
            result = find_unchanged(catalog, cell) if is_plain else None
            if result is None:
                run = run or _start_dagster(catalog, override, verbose, redrive, **settings)
                with _Bar(cell, hidden=quiet or verbose) as bar, listen(bar.report):
                    result = run(cell)
            results.append(result)
            if (number := interruption()) is not None:
                raise Interrupted(number)
    return results


def _start_dagster(
    catalog: Catalog, override: str, verbose: bool, redrive: FailureFilter | None, **settings: str
) -> Callable[[Cell], CellResult]:
    """Open the instance and the code location; return the function that runs a cell."""
    from mm_assets.definitions import build
    from mm_assets.operations.backfill import backfill_cell
    from mm_assets.operations.dagster_home import close_dead_runs, open_instance
    from mm_assets.unchanged_cells import record_report
    from mm_resources.settings import Settings

    instance = open_instance(Settings.from_environment())
    for run_id in close_dead_runs(instance):
        say(f"run {run_id[:8]} has died; it is marked as failed", file=sys.stderr)
    definitions = build(**settings)

    def run(cell: Cell) -> CellResult:
        result = backfill_cell(instance, definitions, cell, catalog, override, verbose, redrive)
        if result.status in ("published", "unchanged"):
            record_report(catalog, cell)
        return result

    return run


@contextmanager
def _reraise_interrupts() -> Iterator[None]:
    """Raise `Interrupted` for a KeyboardInterrupt, at which typer would exit without a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@contextmanager
def _watch_signals(*watched: signal.Signals) -> Iterator[Callable[[], signal.Signals | None]]:
    """Yield a function that returns which of the signals has arrived since its last call, if any.

    The exception that a signal raises is not enough: inside a query or a decoder it may become a failed step.
    """
    ours, pythons = socket.socketpair()
    ours.setblocking(False)
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def find_signal() -> signal.Signals | None:
        try:
            numbers = ours.recv(4096)
        except BlockingIOError:
            return None
        return next((number for number in watched if number in numbers), None)

    try:
        yield find_signal
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

        from mm_embed_kernels.contracts.pipeline import STAGES

        console = Console(stderr=True, emoji=False)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(
            *columns, console=console, disable=hidden or not console.is_terminal, transient=True
        )
        self.stages = self.progress.add_task(f"{cell.partition_key}", total=len(STAGES), rate="")
        self.kernel = self.progress.add_task("", total=1, visible=False, rate="")
        self.current = ""

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def report(self, name: str, done: int, total: int) -> None:
        """Advance the bar: `total` 0 announces the stage `name`; else `done` of `total` rows of a kernel."""
        if total == 0:
            self.progress.update(self.stages, description=name, advance=1 if self.current else 0)
            self.progress.update(self.kernel, visible=False)
            self.current = name
            return
        task = self.progress.tasks[1]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self.progress.update(
            self.kernel, description=f"  {name}", completed=done, total=total, visible=True, rate=rate
        )


def print_results(dataset_version: str, results: list[CellResult]) -> None:
    """Print results of runs, their reasons and notes, and the next command; of busy cells, a line each."""
    busy = bool(results) and all(result.status == "busy" for result in results)
    if not busy:
        _print_table(dataset_version, results)
    for result in results:
        if result.status in ("blocked", "failed", "busy"):
            of = f"{dataset_version} " if busy else ""
            say(f"{of}{result.modality} is {result.status}: {result.reason}")
        for note in result.notes:
            say(f"{result.modality}: {note}")
    if busy:
        return
    if all(result.status == "unchanged" for result in results):
        say("unchanged: nothing was computed, and the published version stays")
    elif any(result.status == "blocked" for result in results):
        say(
            "a blocked cell publishes nothing, and its published version stays; "
            f"see: mm failures {dataset_version}"
        )
    else:
        say(f"next: mm status {dataset_version}")


def exit_code(results: list[CellResult]) -> int:
    """Return the exit code for results: 1 when a cell is blocked or failed, 3 when one is busy, else 0."""
    statuses = {result.status for result in results}
    return 1 if statuses & {"blocked", "failed"} else 3 if "busy" in statuses else 0


def _print_table(dataset_version: str, results: list[CellResult]) -> None:
    print_table(
        dataset_version,
        [
            {
                **result.as_dict(),
                "computed": {kernel: rows for kernel, rows in result.computed.items() if rows},
                "reused": {kernel: rows for kernel, rows in result.reused.items() if rows},
                "run_id": result.run_id[:8],
            }
            for result in results
        ],
        ["modality", "status", "computed", "reused", "seconds", "run_id"],
    )
