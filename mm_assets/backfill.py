"""Backfill cells through Dagster, in this process: one run of the job `refresh` per cell."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from mm_assets.cell_run import CLOSED_GATE, ORDER, OVERRIDE_TAG
from mm_assets.home import PROCESS_TAG, process_tag
from mm_assets.partitions import DATASET_VERSION, partition_key
from mm_resources.ledger import Ledger
from mm_resources.store import Cell, Store
from mm_resources.tables import StageTables


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
    instance: dg.DagsterInstance, definitions: dg.Definitions, cell: Cell, store: Store, override: str = "", verbose: bool = False
) -> CellResult:
    """Materialize all twelve assets of a cell; a closed gate or a failed step is a status, not an exception."""
    began = time.perf_counter()
    register_partition(instance, cell.dataset_version)
    tags = {
        PROCESS_TAG: process_tag(),
        "mm/dataset": cell.dataset,
        "mm/version": cell.version,
        "mm/modality": cell.modality,
        **({OVERRIDE_TAG: override} if override else {}),
    }
    level = "INFO" if verbose else "CRITICAL"
    result = definitions.resolve_job_def("refresh").execute_in_process(
        instance=instance,
        partition_key=partition_key(cell),
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": level}}}},
        raise_on_error=False,
    )
    status, reason = _status(result, cell, store)
    computed, reused = _work(Ledger(store), result.run_id)
    seconds = round(time.perf_counter() - began, 2)
    return CellResult(cell.modality, status, result.run_id, computed, reused, seconds, reason, _notes(result))


def register_partition(instance: dg.DagsterInstance, dataset_version: str) -> None:
    """Make the version a Dagster partition."""
    if dataset_version not in instance.get_dynamic_partitions(DATASET_VERSION):
        instance.add_dynamic_partitions(DATASET_VERSION, [dataset_version])


def _status(result: dg.ExecuteInProcessResult, cell: Cell, store: Store) -> tuple[str, str]:
    if result.success:
        events = result.get_asset_materialization_events()
        same = all(event.materialization.metadata["unchanged"].value for event in events)
        return ("unchanged" if same else "published"), ""
    tables = StageTables(store)
    for name in ORDER:
        meta = tables.meta(name, cell)
        if meta is not None and meta.blocked and meta.run_id == result.run_id:
            return "blocked", f"{name}: {meta.blocked}"
    causes = [_cause(event) for event in result.all_events if event.is_step_failure]
    # A gate that an earlier run closed stops the stages behind it, which say so.
    status = "blocked" if any(CLOSED_GATE in cause for cause in causes) else "failed"
    return status, "; ".join(causes) or "the run was interrupted"


def _notes(result: dg.ExecuteInProcessResult) -> list[str]:
    """What did not stop the run and still wants a person's eye: checks that failed without blocking."""
    found = [event.asset_check_evaluation_data for event in result.all_events if event.event_type_value == "ASSET_CHECK_EVALUATION"]
    return [check.description or check.check_name for check in found if not check.passed and not check.blocking]


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
