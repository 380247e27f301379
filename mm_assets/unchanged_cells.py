"""Unchanged cells, found without a run of Dagster, whose start takes most of the time of such a backfill.

The stages are entered as a run enters them. A cell is left to a run where a stage would compute anything, a
check of external state fails, or the current results were never reported to this Dagster home.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm_assets.cells.cell_asset import CellAsset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.entry import enter
from mm_assets.cells.ledger_rows import ledger_rows
from mm_assets.cells.run_context import RunContext
from mm_assets.graph import STAGE_ASSETS
from mm_assets.operations.cell_result import CellResult
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.identity import digest
from mm_embed_kernels.modalities import get
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.runner import KernelRunner
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.metering import Usage
from mm_resources.settings import Settings
from mm_resources.storage.permissions import make_folders
from mm_resources.tables.stage_refs import StageMeta
from mm_resources.work_settings import default_models, sandbox_limits


def find_unchanged(catalog: Catalog, cell: Cell) -> CellResult | None:
    """Return the result of an unchanged cell; None where a run is necessary."""
    began, snapshot = time.perf_counter(), catalog.snapshot(cell)
    if len(snapshot.metas) < len(STAGES) or not _is_reported(catalog, snapshot):
        return None
    context = RunContext(
        cell=cell,
        run_id=str(uuid.uuid4()),
        tags={},
        catalog=catalog,
        limits=sandbox_limits(),
        open_models=lambda: default_models(get(cell.modality)),
        open_runner=lambda: KernelRunner(catalog.cache),
    )
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    try:
        for declared in STAGE_ASSETS:
            entered, spent = time.perf_counter(), time.process_time()
            run = CellRun(context, declared.name, declared.code_version, declared.deps, snapshot)
            entry = enter(run, declared)
            live = declared.live_checks(run)
            if entry.stored is None or not all(check.passed for check in live):
                return None
            notes += _notes(declared, entry.stored)
            used = time.perf_counter() - entered, Usage(cpu_seconds=time.process_time() - spent)
            rows += ledger_rows(run, entry, entry.stored, *used)
    except Exception:  # noqa: BLE001 - the run meets the same error, and reports it
        return None
    catalog.ledger.record(rows)
    reused: dict[str, int] = {}
    for meta in snapshot.metas.values():
        for kernel, requests in meta.work.items():
            reused[kernel] = reused.get(kernel, 0) + requests
    seconds = round(time.perf_counter() - began, 2)
    return CellResult(
        cell.modality, "unchanged", context.run_id, dict.fromkeys(reused, 0), reused, seconds, "", notes
    )


def _notes(declared: CellAsset, stored: StageMeta) -> Iterator[str]:
    """Yield the descriptions of stored checks that failed without blocking."""
    names = {name for name, _ in declared.checks}
    for check in (Check(**each) for each in stored.checks):
        if check.name in names and not check.passed and not check.blocking:
            yield escape_terminal(check.description)


# -- what a Dagster home was told


def record_report(catalog: Catalog, cell: Cell) -> None:
    """Record that the current results of a cell were reported to this Dagster home."""
    path = _record(cell)
    make_folders(path.parent)
    path.write_text(_result_digest(catalog, catalog.snapshot(cell)), "utf-8")


def _is_reported(catalog: Catalog, snapshot: CellSnapshot) -> bool:
    path = _record(snapshot.cell)
    return path.is_file() and path.read_text("utf-8") == _result_digest(catalog, snapshot)


def _record(cell: Cell) -> Path:
    # Beside Dagster's own databases, so that it is removed with them.
    return Settings.from_environment().dagster_home / "history" / "told" / f"{cell.path}.txt"


def _result_digest(catalog: Catalog, snapshot: CellSnapshot) -> str:
    """Return a digest of the results of a cell, its store, and the configuration of the Dagster instance."""
    config = Settings.from_environment().dagster_home / "dagster.yaml"
    configured = config.read_text("utf-8") if config.is_file() else ""
    results = [f"{name} {meta.run_id} {meta.data_version}" for name, meta in snapshot.metas.items()]
    return digest("told", catalog.store.root, configured, *results)
