"""The job `upkeep` over the whole store, and its weekly schedule.

Dagster reads the `context` annotation of ops at run time, so this module does without `from __future__
import annotations`.
"""

import dagster as dg

from mm_resources.maintenance.upkeep import upkeep
from mm_resources.resources import CatalogResource


@dg.op(description="Compacts small files and removes superseded versions; published data is unchanged.")
def tidy(context: dg.OpExecutionContext, mm_catalog: CatalogResource) -> None:
    """Compact the store's tables and report on each part."""
    parts = upkeep(mm_catalog.open())
    figures = {part.part: dg.MetadataValue.json(vars(part)) for part in parts}
    context.add_output_metadata(figures)


@dg.job(name="upkeep", executor_def=dg.in_process_executor, description="mm upkeep, over the whole store.")
def upkeep_job() -> None:
    """Run `mm upkeep` over the whole store."""
    tidy()


def upkeep_schedule(cron: str = "0 5 * * 0") -> dg.ScheduleDefinition:
    """Return the schedule of the upkeep."""
    return dg.ScheduleDefinition(
        name="weekly_upkeep",
        job=upkeep_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Compacts small files and removes versions that were superseded a week ago.",
    )
