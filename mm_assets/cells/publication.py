"""Publish a stage: rows, failures, verdict and checks by one ref, then the report to Dagster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mm_assets.cells.asset_page import asset_page
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check, closed_gates
from mm_assets.cells.entry import Entry
from mm_assets.cells.figures import Effort
from mm_assets.cells.gates import OVERRIDABLE, override_command
from mm_assets.cells.ledger_rows import ledger_rows
from mm_assets.cells.materialization import materialize_result, metadata_value
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.identity import canonical_json, digest
from mm_resources.tables.failure_events import FailureCount
from mm_resources.tables.stage_refs import StageMeta

# A plot of fewer samples shows nothing that the counts do not; drawing takes a fifth of such a cell's time.
DRAWN_SAMPLES = 10

LiveChecks = Callable[[CellRun], list[Check]]


def publish(
    run: CellRun, entry: Entry, output: StageOutput, live_checks: LiveChecks
) -> dg.MaterializeResult[Any]:
    """Commit the output of an asset body.

    Args:
        live_checks: checks of external state, run in every run.

    Raises:
        Fenced: when another run published the stage meanwhile, or this run was marked as finished.
    """
    kernel = run.reports[-1].fingerprint if run.reports else ""
    failed = run.catalog.failures.write(
        run.asset, run.cell, run.run_id, run.failure_events(), kernel, run.limits.environment
    )
    checks = [_waive(run, check) for check in output.checks]
    reason = _closing_reason(run, checks)
    drawn = {} if reason else _draw(run, output)
    run.require_alive()
    if output.before_commit is not None and not reason:
        output.before_commit()
    for name, png in drawn.items():
        run.catalog.tables.save_plot(run.asset, run.cell, run.run_id, name, png)
    meta = _meta(run, entry, output, failed, checks, reason, list(drawn))
    # Recorded before the commit, so that the cost of a run killed in between is kept.
    _record(run, entry, meta)
    run.catalog.tables.commit(run.asset, run.cell, output.rows, meta, run.number, entry.row_code, entry.read)
    return _report(run, meta, checks, live_checks, unchanged=False)


def replay(
    run: CellRun, entry: Entry, stored: StageMeta, live_checks: LiveChecks
) -> dg.MaterializeResult[Any]:
    """Report the stored result of a stage whose inputs are unchanged."""
    _record(run, entry, stored)
    return _report(run, stored, [Check(**check) for check in stored.checks], live_checks, unchanged=True)


def _draw(run: CellRun, output: StageOutput) -> dict[str, bytes]:
    """Return the plots of a stage as PNG, by name; none of a cell that is told by its counts."""
    listed = run.snapshot.meta("raw_assets")
    if listed is None or listed.rows < DRAWN_SAMPLES:
        return {}
    return {name: png for name, draw in output.plots.items() if (png := draw())}


def _waive(run: CellRun, check: Check) -> Check:
    return replace(check, waived=bool(run.override) and not check.passed and check.name in OVERRIDABLE)


def _closing_reason(run: CellRun, checks: Sequence[Check]) -> str:
    """Return the reason of a closed gate and the command that overrides it; "" for an open gate."""
    reason = "; ".join(check.description for check in closed_gates(checks))
    command = override_command(run.cell, checks)
    return f"{reason}; to publish all the same: {command}" if command else reason


def _meta(
    run: CellRun,
    entry: Entry,
    output: StageOutput,
    failed: FailureCount,
    checks: Sequence[Check],
    reason: str,
    plots: list[str],
) -> StageMeta:
    waived = "; ".join(check.description for check in checks if check.waived)
    overridden = {"gate overridden": f"{waived} ({run.override})"} if waived else {}
    samples = run.samples_written
    return StageMeta(
        data_version=digest("stage", run.asset, output.rows.digest, canonical_json(entry.code))[:24],
        inputs=entry.inputs,
        rows=output.rows.rows,
        row_count=output.rows.rows if output.row_count is None else output.row_count,
        failed=failed.events,
        retryable=failed.retryable,
        failures=failed.version,
        environment=run.limits.environment,
        blocked=reason,
        work={report.kernel: report.computed + report.reused for report in run.reports},
        run_id=run.run_id,
        at=datetime.now(UTC).isoformat(),
        summary={**output.summary, **overridden},
        checks=[
            {**vars(check), "figures": {name: metadata_value(value) for name, value in check.figures.items()}}
            for check in checks
        ],
        plots=plots,
        figures=dict(output.figures),
        samples=entry.samples_in if samples is None else samples,
        counts_runs=True,
    )


def _record(run: CellRun, entry: Entry, meta: StageMeta) -> None:
    """Write the stage's rows to the ledger."""
    seconds = time.perf_counter() - run.began
    rows = ledger_rows(run, entry, meta, seconds, run.meter.usage(), run.meter.peak_bytes)
    run.meter.close()
    run.catalog.ledger.record(rows)


def _report(
    run: CellRun, meta: StageMeta, checks: Sequence[Check], live_checks: LiveChecks, unchanged: bool
) -> dg.MaterializeResult[Any]:
    work = {report.kernel: (report.computed, report.reused) for report in run.reports}
    work = work or {kernel: (0, requests) for kernel, requests in meta.work.items()}
    declared = run.context.checks
    made = [check for check in [*checks, *live_checks(run)] if check.name in declared]
    # A stored result may be of a version that had fewer checks.
    made += [
        Check(name, True, "was not measured when the stage was computed", blocking=False)
        for name in sorted(declared - {check.name for check in made})
    ]
    effort = Effort(work, unchanged, time.perf_counter() - run.began)
    return materialize_result(run.asset, run.cell, meta, asset_page(run, meta), made, effort)
