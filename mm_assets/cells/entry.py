"""Decide whether a stage runs: fail behind a closed gate, skip where its inputs are unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mm_assets.cells.cell_asset import CellAsset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import GateClosed
from mm_assets.cells.row_inputs import plan_increment, read_places, row_code
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, digest
from mm_resources.compute.progress import report
from mm_resources.tables.stage_refs import StageMeta


@dataclass(frozen=True)
class Entry:
    """The result of comparing a stage's inputs with those of its last result.

    Attributes:
        inputs: digest of all inputs; equal inputs need no new work.
        code: code version and extra inputs.
        samples_in: samples that reach the stage; None where the stage before it did not count them.
        stored: the stage's last result if it is still valid, so that nothing is computed; else None.
        row_code: digest of what decides about rows beside those upstream; see `StageRef.code`.
        read: the rows upstream that the stage is computed from; see `StageRef.read`.
    """

    inputs: str
    code: Mapping[str, Any]
    samples_in: int | None
    stored: StageMeta | None
    row_code: str = ""
    read: Mapping[str, list[Any]] = field(default_factory=dict)


def enter(run: CellRun, declared: CellAsset) -> Entry:
    """Compare a stage's inputs with those of its last result.

    Raises:
        GateClosed: when the gate of an upstream stage is closed.
        UserError: when upstream is missing or an erasure is incomplete.
        Fenced: when the run was marked as finished.
    """
    run.require_alive()
    run.catalog.receipts.require_done()
    report(run.asset, 0, 0)
    upstream = run.snapshot.upstream_metas(run.asset)
    for name, meta in upstream.items():
        if meta is not None and meta.blocked:
            raise GateClosed(name, meta.blocked)
    for name, meta in upstream.items():
        if meta is None:
            raise UserError(
                f"{name} of {run.cell.partition_key} is not materialized; "
                f"run `mm backfill {run.cell.dataset_version}`"
            )
    declared.prepare(run)
    samples_in = next((meta.samples for meta in reversed([*upstream.values()]) if meta), None)
    versions = {name: meta.data_version for name, meta in upstream.items() if meta}
    code = {"code_version": run.code_version, **declared.extra_inputs(run)}
    inputs = digest("inputs", run.asset, canonical_json(versions), canonical_json(code))
    stored = run.snapshot.meta(run.asset)
    if stored is not None and (
        stored.inputs != inputs
        or stored.blocked
        or _has_retries(run, stored)
        or not declared.is_still_valid(run)
    ):
        stored = None
    if stored is not None:
        return Entry(inputs, code, samples_in, stored)
    decides = row_code(run, declared.row_inputs)
    run.increment = plan_increment(run, declared.row_inputs, decides)
    return Entry(inputs, code, samples_in, None, decides, read_places(run, declared.row_inputs))


def _has_retries(run: CellRun, meta: StageMeta) -> bool:
    """Return whether the run computes failures again that the stage has recorded."""
    if run.redrive is None:
        return bool(
            meta.retryable
            or (meta.failed and meta.environment != run.limits.environment)
            or (
                meta.failed
                and not meta.counts_runs
                and run.catalog.failures.has_suspected(run.cell, run.asset)
            )
        )
    if run.redrive.stage not in ("", run.asset):
        return False
    failures = run.catalog.failures.read(run.cell, ["stage"], [run.asset], run.redrive)
    return any(batch.num_rows for batch in failures)
