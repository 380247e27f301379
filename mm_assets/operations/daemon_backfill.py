"""Backfills by the daemon: one Dagster backfill over the cells, the same as the UI's dialog makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mm_assets.cells.partitions import partition_key
from mm_assets.cells.run_tags import OVERRIDE_TAG, cell_tags
from mm_assets.operations.backfill import cell_result, register_partition
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell

POLL_SECONDS = 2.0
# A daemon reports every 30 seconds.
HEARTBEAT_SECONDS = 90


@dataclass(frozen=True)
class Launched:
    """A backfill that was handed to the daemon."""

    backfill_id: str
    cells: list[Cell]


def launch(
    instance: dg.DagsterInstance, definitions: dg.Definitions, cells: list[Cell], override: str = ""
) -> Launched:
    """Hand the cells to the daemon as one backfill of all twelve assets."""
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    for cell in cells:
        register_partition(instance, cell.dataset_version)
    shared = {name: value for name, value in cell_tags(cells[0]).items() if name != "mm/modality"}
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=make_new_backfill_id(),
        asset_graph=definitions.resolve_asset_graph(),
        partition_names=[partition_key(cell) for cell in cells],
        asset_selection=[dg.AssetKey(name) for name in STAGES],
        backfill_timestamp=time.time(),
        tags={**shared, **({OVERRIDE_TAG: override} if override else {})},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=f"{cells[0].dataset_version}: {', '.join(cell.modality for cell in cells)}",
        description="mm backfill --launch",
        run_config=None,
    )
    instance.add_backfill(backfill)
    return Launched(backfill.backfill_id, cells)


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon that works on backfills has reported in lately."""
    from dagster._daemon.controller import get_daemon_statuses

    status = get_daemon_statuses(instance, ["BACKFILL"], heartbeat_tolerance_seconds=HEARTBEAT_SECONDS).get(
        "BACKFILL"
    )
    return bool(status and status.healthy)


def wait(
    instance: dg.DagsterInstance, catalog: Catalog, launched: Launched, told: Callable[[str], None]
) -> Iterator[Any]:
    """Follow a backfill to its end; the results of its cells, like those of a backfill in this process."""
    began, last = time.perf_counter(), ""
    while True:
        backfill = instance.get_backfill(launched.backfill_id)
        runs = list(instance.get_runs(dg.RunsFilter.for_backfill(launched.backfill_id)))
        line = (
            ", ".join(f"{_modality(run)} {run.status.value.lower()}" for run in runs)
            or "waiting for the daemon"
        )
        if line != last:
            told(line)
            last = line
        if backfill is None or (
            backfill.status.value not in ("REQUESTED", "CANCELING") and all(run.is_finished for run in runs)
        ):
            break
        time.sleep(POLL_SECONDS)
    by_modality = {_modality(run): run for run in runs}
    for cell in launched.cells:
        yield cell_result(
            instance, catalog, cell, by_modality.get(cell.modality), time.perf_counter() - began
        )


def _modality(run: dg.DagsterRun) -> str:
    return run.tags.get("dagster/partition/modality", "?")
