"""The job `metrics`: figures for Prometheus of what runs without `mm serve`, and its schedule.

Dagster reads the `context` annotation of ops at run time, so this module does without `from __future__
import annotations`.
"""

from pathlib import Path

import dagster as dg

from mm_assets.cells.run_failures import one_line_failures
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_embed_kernels.urls import redact_text
from mm_resources.resources import CatalogResource
from mm_resources.settings import Settings

_STATUSES = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dg.op(description="Writes figures of the store and of Dagster's queue for Prometheus.")
def write_figures(context: dg.OpExecutionContext, mm_catalog: CatalogResource) -> None:
    """Write the figures; fail where no place is named."""
    settings = Settings.from_environment()
    with one_line_failures():
        if not settings.metrics_file and not settings.metrics_gateway:
            raise UserError("metrics have no place: set MM_METRICS_FILE=FILE.prom or MM_METRICS_GATEWAY=URL")
        with explain_missing("the job metrics"):
            # Loads prometheus_client, which an installation may lack.
            from mm_resources.monitoring.store_metrics import write_metrics
        queue = {
            status.value.lower(): context.instance.get_runs_count(dg.RunsFilter(statuses=[status]))
            for status in _STATUSES
        }
        file = Path(settings.metrics_file) if settings.metrics_file else None
        try:
            written = write_metrics(mm_catalog.open(), queue, file, settings.metrics_gateway)
        except OSError as error:
            raise UserError(f"metrics cannot be written: {redact_text(str(error))}") from None
    context.add_output_metadata({"written": [redact_text(place) for place in written]})


@dg.job(name="metrics", executor_def=dg.in_process_executor, description="Figures for Prometheus.")
def metrics_job() -> None:
    """Write figures for Prometheus."""
    write_figures()


def metrics_schedule(cron: str = "*/5 * * * *") -> dg.ScheduleDefinition:
    """Return the schedule of the figures."""
    return dg.ScheduleDefinition(
        name="metrics_for_prometheus",
        job=metrics_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Writes figures of the store and of Dagster's queue for Prometheus.",
    )
