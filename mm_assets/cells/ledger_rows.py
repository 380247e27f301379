"""The rows of a stage in the ledger of runs."""

from __future__ import annotations

from typing import Any

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.entry import Entry
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.compute.runner import ComputeReport
from mm_resources.ledger.ledger import Spent, entries
from mm_resources.metering import Usage
from mm_resources.tables.stage_refs import StageMeta


def ledger_rows(
    run: CellRun, entry: Entry, meta: StageMeta, seconds: float, usage: Usage, peak_bytes: int = 0
) -> list[dict[str, Any]]:
    """Return the row of a stage and those of its kernels; a stored result counts as rows that were reused.

    Args:
        meta: the result of the run, or the stored one of an unchanged stage.
        seconds: on the clock.
        usage: of all processes.
        peak_bytes: most memory of all processes.
    """
    unchanged = meta is entry.stored
    reports = run.reports or [
        ComputeReport(kernel, "", "", 0, requests, 0, 0, 0.0) for kernel, requests in meta.work.items()
    ]
    samples_in = meta.samples if run.asset == STAGES[0] else entry.samples_in
    spent = Spent(seconds, usage, peak_bytes, samples_in, meta.samples)
    return entries(run.asset, run.cell, run.run_id, meta, unchanged, reports, spent)
