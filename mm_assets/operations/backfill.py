"""Backfill a cell by one run of `refresh` in this process, and read a run's result from its events."""

from __future__ import annotations

import time
from collections import defaultdict

import dagster as dg

from mm_assets.cells.partitions import DATASET_VERSION, partition_key
from mm_assets.cells.run_failures import is_closed_gate
from mm_assets.cells.run_tags import OVERRIDE_TAG, REDRIVE_TAG, cell_tags
from mm_assets.dagster_private import error_message
from mm_assets.operations.cell_result import CellResult
from mm_assets.operations.dagster_home import PROCESS_TAG, active_runs, process_tag
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.ledger.ledger import Ledger
from mm_resources.tables.failure_events import FailureFilter


def backfill_cell(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    cell: Cell,
    catalog: Catalog,
    override: str = "",
    verbose: bool = False,
    redrive: FailureFilter | None = None,
) -> CellResult:
    """Materialize all twelve assets of a cell.

    A closed gate or a failed step is a status, not an exception; so is another run that processes the cell
    already, ``busy``: then nothing is done.

    Args:
        override: the reason for passing closed gates.
        redrive: failures to compute again, permanent ones included; by default the retryable ones.
    """
    began = time.perf_counter()
    if others := active_runs(instance, cell.partition_key):
        reason = f"{others} is processing it; nothing was done; run the same command when that run has ended"
        return CellResult(cell.modality, "busy", "", {}, {}, 0.0, reason)
    register_partition(instance, cell.dataset_version)
    tags = {PROCESS_TAG: process_tag(), **cell_tags(cell), **({OVERRIDE_TAG: override} if override else {})}
    if redrive is not None:
        tags[REDRIVE_TAG] = redrive.dumps()
    level = "INFO" if verbose else "CRITICAL"
    result = definitions.resolve_job_def("refresh").execute_in_process(
        instance=instance,
        partition_key=partition_key(cell),
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": level}}}},
        raise_on_error=False,
    )
    run = instance.get_run_by_id(result.run_id)
    return cell_result(instance, catalog, cell, run, time.perf_counter() - began)


def cell_result(
    instance: dg.DagsterInstance, catalog: Catalog, cell: Cell, run: dg.DagsterRun | None, seconds: float
) -> CellResult:
    """Read the result of a cell's run from its event log, whichever process executed it."""
    if run is None:
        return CellResult(cell.modality, "failed", "", {}, {}, round(seconds, 2), "no run was started for it")
    events = [log.dagster_event for log in instance.all_logs(run.run_id) if log.dagster_event is not None]
    status, reason = _status(run, events, cell, catalog)
    computed, reused = rows_by_kernel(catalog.ledger, run.run_id)
    return CellResult(
        cell.modality, status, run.run_id, computed, reused, round(seconds, 2), reason, _warnings(events)
    )


def register_partition(instance: dg.DagsterInstance, dataset_version: str) -> None:
    """Add the version to Dagster's dynamic partitions."""
    if dataset_version not in instance.get_dynamic_partitions(DATASET_VERSION):
        instance.add_dynamic_partitions(DATASET_VERSION, [dataset_version])


def _status(
    run: dg.DagsterRun, events: list[dg.DagsterEvent], cell: Cell, catalog: Catalog
) -> tuple[str, str]:
    """Return status and reason of a run that has ended."""
    if run.status == dg.DagsterRunStatus.SUCCESS:
        unchanged = [
            event.step_materialization_data.materialization.metadata["unchanged"].value
            for event in events
            if event.is_step_materialization
        ]
        return ("unchanged" if all(unchanged) else "published"), ""
    for name, meta in catalog.snapshot(cell).metas.items():
        if meta.blocked and meta.run_id == run.run_id:
            return "blocked", f"{name}: {meta.blocked}"
    causes = [_failure_line(event) for event in events if event.is_step_failure]
    # A gate that an earlier run closed stops the later stages.
    status = "blocked" if any(is_closed_gate(event) for event in events) else "failed"
    return status, "; ".join(causes) or f"the run was {run.status.value.lower()} before it ended"


def _warnings(events: list[dg.DagsterEvent]) -> list[str]:
    """Return the descriptions of checks that failed without blocking."""
    checks = [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return [
        check.description or check.check_name for check in checks if not check.passed and not check.blocking
    ]


def _failure_line(event: dg.DagsterEvent) -> str:
    """Return step and innermost error of a step failure, in one line."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return f"{event.step_key}: {data.user_failure_data.description}"
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"{event.step_key}: {error_message(error) if error else 'failed'}"


def rows_by_kernel(ledger: Ledger, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return the rows that a run computed and reused, by kernel; a skipped stage reused all of its rows."""
    computed: dict[str, int] = defaultdict(int)
    reused: dict[str, int] = defaultdict(int)
    for row in ledger.run_rows(run_id):
        if row["kernel"]:
            computed[row["kernel"]] += row["computed"]
            reused[row["kernel"]] += row["reused"]
    return dict(computed), dict(reused)


def unfinished_cells(catalog: Catalog, cells: list[Cell]) -> list[Cell]:
    """Select the cells that are unpublished, or have a closed gate or failures that a run computes again."""
    return [cell for cell in cells if not _is_finished(catalog, cell)]


def _is_finished(catalog: Catalog, cell: Cell) -> bool:
    snapshot = catalog.snapshot(cell)
    return snapshot.pin is not None and not any(
        meta.blocked
        or meta.retryable
        # Failures of the machine's that an older version has made permanent.
        or (meta.failed and not meta.counts_runs and catalog.failures.has_suspected(cell, stage))
        for stage, meta in snapshot.metas.items()
    )
