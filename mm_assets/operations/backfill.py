"""Backfill cells through Dagster, in this process: one run of the job `refresh` per cell."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from mm_assets.cells.partitions import DATASET_VERSION, partition_key
from mm_assets.cells.run_failures import is_closed_gate
from mm_assets.cells.run_tags import OVERRIDE_TAG, REDRIVE_TAG, cell_tags
from mm_assets.operations.dagster_home import PROCESS_TAG, at_work, process_tag
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.ledger.ledger import Ledger
from mm_resources.tables.failure_events import FailureFilter


@dataclass(frozen=True)
class CellResult:
    """What a backfill did to one cell."""

    modality: str
    status: str
    run_id: str
    computed: dict[str, int]
    reused: dict[str, int]
    seconds: float
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("reason", "notes") or value}


def backfill_cell(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    cell: Cell,
    catalog: Catalog,
    override: str = "",
    verbose: bool = False,
    redrive: FailureFilter | None = None,
) -> CellResult:
    """Materialize all twelve assets of a cell; a closed gate or a failed step is a status, not an exception.

    Nor is a run that is at work on the cell already: then nothing is done.

    Args:
        override: the reason for which closed gates are passed.
        redrive: failures to try again, permanent ones too, instead of those that may pass.
    """
    began = time.perf_counter()
    if rival := at_work(instance, cell.partition_key):
        return CellResult(
            cell.modality, "failed", "", {}, {}, 0.0, f"{rival} is at work on it, so nothing was done"
        )
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
    """What a run did to its cell, read from its event log, whoever executed it."""
    if run is None:
        return CellResult(cell.modality, "failed", "", {}, {}, round(seconds, 2), "no run was started for it")
    events = [log.dagster_event for log in instance.all_logs(run.run_id) if log.dagster_event is not None]
    status, reason = _status(run, events, cell, catalog)
    computed, reused = _work(catalog.ledger, run.run_id)
    return CellResult(
        cell.modality, status, run.run_id, computed, reused, round(seconds, 2), reason, _notes(events)
    )


def register_partition(instance: dg.DagsterInstance, dataset_version: str) -> None:
    """Make the version a Dagster partition."""
    if dataset_version not in instance.get_dynamic_partitions(DATASET_VERSION):
        instance.add_dynamic_partitions(DATASET_VERSION, [dataset_version])


def _status(
    run: dg.DagsterRun, events: list[dg.DagsterEvent], cell: Cell, catalog: Catalog
) -> tuple[str, str]:
    if run.status == dg.DagsterRunStatus.SUCCESS:
        done = [
            event.step_materialization_data.materialization
            for event in events
            if event.is_step_materialization
        ]
        return ("unchanged" if all(item.metadata["unchanged"].value for item in done) else "published"), ""
    for name, meta in catalog.snapshot(cell).metas.items():
        if meta.blocked and meta.run_id == run.run_id:
            return "blocked", f"{name}: {meta.blocked}"
    causes = [_cause(event) for event in events if event.is_step_failure]
    # A gate that an earlier run closed stops the stages behind it.
    status = "blocked" if any(is_closed_gate(event) for event in events) else "failed"
    return status, "; ".join(causes) or f"the run was {run.status.value.lower()} before it ended"


def _notes(events: list[dg.DagsterEvent]) -> list[str]:
    """What did not stop the run and still wants a person's eye: checks that failed without blocking."""
    found = [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return [
        check.description or check.check_name for check in found if not check.passed and not check.blocking
    ]


def _cause(event: dg.DagsterEvent) -> str:
    """Step and innermost error of a step failure, in one line."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return f"{event.step_key}: {data.user_failure_data.description}"
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"{event.step_key}: {' '.join(error.message.split()) if error else 'failed'}"


def _work(ledger: Ledger, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """Rows computed and reused by kernel; a stage that was skipped as unchanged reused what it had."""
    computed: dict[str, int] = defaultdict(int)
    reused: dict[str, int] = defaultdict(int)
    for row in ledger.of_run(run_id):
        if row["kernel"]:
            computed[row["kernel"]] += row["computed"]
            reused[row["kernel"]] += row["reused"]
    return dict(computed), dict(reused)


def unsound(catalog: Catalog, cells: list[Cell]) -> list[Cell]:
    """The cells that are not published, stand before a closed gate, or have failures that may pass when tried again."""

    def sound(cell: Cell) -> bool:
        snapshot = catalog.snapshot(cell)
        return snapshot.pin is not None and not any(
            meta.blocked or meta.retryable for meta in snapshot.metas.values()
        )

    return [cell for cell in cells if not sound(cell)]
