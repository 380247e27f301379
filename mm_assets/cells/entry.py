"""Enter a stage: refuse behind a closed gate, and pass by where nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.run_failures import GateClosed
from mm_assets.cells.stage_output import Entry
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, digest
from mm_resources.compute.progress import report
from mm_resources.tables.stage_tables import StageMeta


def enter(
    run: CellRun, extra_inputs: Callable[[CellRun], dict[str, Any]], is_still_valid: Callable[[CellRun], bool]
) -> Entry:
    """Compare a stage's inputs with those of its last result.

    Args:
        extra_inputs: what besides upstream data decides the result.
        is_still_valid: whether the last result still describes the store; called when nothing else changed.

    Raises:
        GateClosed: when the gate of an upstream stage is closed.
        UserError: in one line, when upstream is missing or a forgetting is half done.
        Fenced: when the run was declared dead.
    """
    run.require_alive()
    run.catalog.receipts.require_done()
    report(run.asset, 0, 0)
    upstream = run.snapshot.before(run.asset)
    for name, meta in upstream.items():
        if meta is not None and meta.blocked:
            raise GateClosed(name, meta.blocked)
    for name, meta in upstream.items():
        if meta is None:
            raise UserError(
                f"{name} of {run.cell.partition_key} is not materialized; "
                f"run `mm backfill {run.cell.dataset_version}`"
            )
    samples_in = next((meta.samples for meta in reversed([*upstream.values()]) if meta), None)
    versions = {name: meta.data_version for name, meta in upstream.items() if meta}
    code = {"code_version": run.code_version, **extra_inputs(run)}
    inputs = digest("inputs", run.asset, canonical_json(versions), canonical_json(code))
    stored = run.snapshot.meta(run.asset)
    if stored is not None and (
        stored.inputs != inputs or stored.blocked or _has_retries(run, stored) or not is_still_valid(run)
    ):
        stored = None
    return Entry(inputs, code, samples_in, stored)


def _has_retries(run: CellRun, meta: StageMeta) -> bool:
    """Return whether the run computes failures again that the stage has recorded."""
    if run.redrive is None:
        return bool(meta.retryable or (meta.failed and meta.environment != run.limits.environment))
    if run.redrive.stage not in ("", run.asset):
        return False
    failures = run.catalog.failures.read(run.cell, ["stage"], [run.asset], run.redrive)
    return any(batch.num_rows for batch in failures)
