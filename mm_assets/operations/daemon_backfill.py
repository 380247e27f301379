"""Backfill cells by the daemon: one Dagster backfill over all of them, like one made in the UI's dialog."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.partitions import MODALITY, partition_key
from mm_assets.cells.run_tags import OVERRIDE_TAG, cell_tags
from mm_assets.dagster_private import DIMENSION_TAG_PREFIX, partitions_backfill
from mm_assets.operations.backfill import cell_result, register_partition
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class LaunchedBackfill:
    """A backfill that the daemon executes."""

    backfill_id: str
    cells: list[Cell]


def launch(
    instance: dg.DagsterInstance, definitions: dg.Definitions, cells: list[Cell], override: str = ""
) -> LaunchedBackfill:
    """Submit the cells to the daemon as one backfill of all twelve assets."""
    for cell in cells:
        register_partition(instance, cell.dataset_version)
    shared = {name: value for name, value in cell_tags(cells[0]).items() if name != "mm/modality"}
    backfill = partitions_backfill(
        definitions,
        instance,
        [asset_key(name) for name in STAGES],
        [partition_key(cell) for cell in cells],
        tags={**shared, **({OVERRIDE_TAG: override} if override else {})},
        title=f"{cells[0].dataset_version}: {', '.join(cell.modality for cell in cells)}",
        description="mm backfill --launch",
    )
    instance.add_backfill(backfill)
    return LaunchedBackfill(backfill.backfill_id, cells)


def wait(
    instance: dg.DagsterInstance, catalog: Catalog, launched: LaunchedBackfill, report: Callable[[str], None]
) -> Iterator[Any]:
    """Wait for the end of a backfill and yield the results of its cells.

    Args:
        report: receives a line each time that the status of a run changes.
    """
    began, last = time.perf_counter(), ""
    while True:
        backfill = instance.get_backfill(launched.backfill_id)
        runs = list(instance.get_runs(dg.RunsFilter.for_backfill(launched.backfill_id)))
        line = (
            ", ".join(f"{_modality(run)} {run.status.value.lower()}" for run in runs)
            or "waiting for the daemon"
        )
        if line != last:
            report(line)
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
    return run.tags.get(f"{DIMENSION_TAG_PREFIX}{MODALITY}", "?")
