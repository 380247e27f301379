"""The job `refresh`, its nightly schedule, and the sensor that materializes downstream assets."""

from __future__ import annotations

import dagster as dg

from mm_assets.automation.problem_reports import join_problems
from mm_assets.cells.partitions import partition_key
from mm_assets.cells.run_tags import STAGE_TAG, cell_tags
from mm_resources.cell import Cell
from mm_resources.resources import CatalogResource

# Never all assets of the code location: a user's own project holds others. By their tag, since the prefix of
# their keys is known only when a project is loaded.
ASSETS = dg.AssetSelection.tag(*STAGE_TAG)

conditions = dg.AutomationConditionSensorDefinition(
    "conditions",
    target=ASSETS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Continues materialized assets up to the publish; stops at a failed gate.",
)


refresh = dg.define_asset_job(
    "refresh",
    selection=ASSETS,
    description="All twelve components of one cell, in one process, with one Ray session at most.",
    executor_def=dg.in_process_executor,
)


def cell_request(cell: Cell, key: str) -> dg.RunRequest:
    """Request a run of all of a cell's assets; Dagster starts one run for each key."""
    return dg.RunRequest(
        job_name="refresh",
        run_key=f"{cell.partition_key}|{key}",
        partition_key=partition_key(cell),
        tags=cell_tags(cell),
    )


def refresh_schedule(cron: str = "0 3 * * *") -> dg.ScheduleDefinition:
    """Return the schedule `nightly`, which requests a refresh of every published cell."""

    @dg.schedule(
        name="nightly",
        job_name="refresh",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Refreshes all published cells: retries failures, restores lost blobs, reports changed "
        "sources.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, mm_catalog: CatalogResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        problems: list[str] = []
        pins = mm_catalog.open().registry.latest_pins(problems=problems)
        when = context.scheduled_execution_time.isoformat()
        requests = [cell_request(pin.cell, when) for pin in pins]
        for problem in problems:
            context.log.error(problem)
        return requests or dg.SkipReason(join_problems(problems) or "nothing is published yet")

    return schedule


nightly = refresh_schedule()
