"""Runs of a cell without Dagster, whose events and storage take half of a small cell's time.

The stages are entered, computed and published as a run of `refresh` does it; `test_cell_stages.py` holds the
two against each other.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

import dagster as dg

from mm_assets.cells.cell_asset import CellAsset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import GateClosed
from mm_assets.cells.entry import enter
from mm_assets.cells.publication import publish, replay
from mm_assets.cells.run_context import RunContext
from mm_assets.cells.run_failures import one_line_failures
from mm_assets.cells.run_tags import OVERRIDE_TAG, REDRIVE_TAG
from mm_assets.graph import STAGE_ASSETS
from mm_assets.operations.backfill import rows_by_kernel
from mm_assets.operations.cell_result import CellResult
from mm_embed_kernels.modalities import get
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.runner import KernelRunner
from mm_resources.storage.patience import read_patiently
from mm_resources.tables.failure_events import FailureFilter
from mm_resources.work_settings import default_models, sandbox_limits

_SILENT = logging.getLogger("mm.tests")
_SILENT.disabled = True


def backfill_stages(
    catalog: Catalog, cell: Cell, override: str = "", redrive: FailureFilter | None = None
) -> CellResult:
    """Materialize the twelve stages of a cell, one after the other, until one fails or closes its gate."""
    began, run_id = time.perf_counter(), str(uuid.uuid4())
    tags = {OVERRIDE_TAG: override} if override else {}
    if redrive is not None:
        tags[REDRIVE_TAG] = redrive.dumps()
    status, reason, notes = "unchanged", "", list[str]()
    for declared in STAGE_ASSETS:
        try:
            reported = _materialize(declared, catalog, cell, run_id, tags)
        except dg.Failure as failure:
            closed = isinstance(failure.__cause__, GateClosed)
            status, reason = "blocked" if closed else "failed", f"{declared.name}: {failure.description}"
            break
        if not dict(reported.metadata or {})["unchanged"]:
            status = "published"
        blocking = dict(declared.checks)
        notes += [
            check.description or ""
            for check in reported.check_results or []
            if not check.passed and not blocking[str(check.check_name)]
        ]
        meta = catalog.snapshot(cell).meta(declared.name)
        if meta is not None and meta.blocked:
            status, reason = "blocked", f"{declared.name}: {meta.blocked}"
            break
    computed, reused = rows_by_kernel(catalog.ledger, run_id)
    seconds = round(time.perf_counter() - began, 2)
    return CellResult(cell.modality, status, run_id, computed, reused, seconds, reason, notes)


def _materialize(
    declared: CellAsset, catalog: Catalog, cell: Cell, run_id: str, tags: dict[str, str]
) -> dg.MaterializeResult[Any]:
    context = RunContext(
        cell=cell,
        run_id=run_id,
        tags=tags,
        catalog=catalog,
        limits=sandbox_limits(),
        open_models=lambda: default_models(get(cell.modality)),
        open_runner=lambda: KernelRunner(catalog.cache, RaySession(), "inline"),
        checks=frozenset(name for name, _ in declared.checks),
        log=_SILENT,
    )
    with one_line_failures():
        run = CellRun(context, declared.name, declared.code_version, declared.deps)
        run.begin()
        entry = read_patiently(lambda: enter(run, declared))
        if entry.stored is not None:
            return replay(run, entry, entry.stored, declared.live_checks)
        return publish(run, entry, declared.body(run), declared.live_checks)
