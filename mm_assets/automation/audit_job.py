"""The job `audit` over all published tables, and its weekly schedule.

Dagster reads the `context` annotation of ops at run time, so this module does without `from __future__
import annotations`.
"""

from dataclasses import asdict

import dagster as dg

from mm_assets.operations.audits import audit_tables
from mm_embed_kernels.errors import UserError
from mm_resources.resources import CatalogResource


@dg.op(description="Recomputes a sample of each published table from the blobs; fails where a row differs.")
def recompute(context: dg.OpExecutionContext, mm_catalog: CatalogResource) -> None:
    """Audit all published tables; fail on wrong rows."""
    try:
        audits = list(audit_tables(mm_catalog.open()))
    except UserError as error:
        # Nothing is published: there is nothing to audit.
        context.log.info(str(error))
        return
    figures = {table.table: dg.MetadataValue.json(asdict(table)) for table in audits}
    context.add_output_metadata(figures)
    wrong = [str(table) for table in audits if table.wrong]
    if wrong:
        raise dg.Failure("; ".join(wrong), metadata=figures, allow_retries=False)


@dg.job(name="audit", executor_def=dg.in_process_executor, description="mm audit, over all published tables.")
def audit_job() -> None:
    """Run `mm audit` over all published tables."""
    recompute()


def audit_schedule(cron: str = "0 4 * * 6") -> dg.ScheduleDefinition:
    """Return the schedule of the audit."""
    return dg.ScheduleDefinition(
        name="weekly_audit",
        job=audit_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Recomputes a sample of all published rows from the blobs; a failed run names tables "
        "with wrong rows.",
    )
