"""Validation: the samples that meet the contract and the spec's rules, and the gate's verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, validation_inputs
from mm_assets.cells.checks import Check
from mm_assets.cells.gates import GATE_CHECKS, evaluate_gates, gate_inputs
from mm_assets.cells.row_inputs import RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.validation.bounds import REJECTED, rejection_reasons


def _inputs(run: CellRun) -> dict[str, Any]:
    return {**gate_inputs(run), **validation_inputs(run)}


@cell_asset(
    group="2_curate",
    deps=["dataset_registry", "sample_metadata"],
    kinds=["pandera", "lance"],
    checks=GATE_CHECKS,
    extra_inputs=_inputs,
    row_inputs=RowInputs({"sample_metadata": columns_of("sample_metadata")}, validation_inputs),
)
def validated_samples(run: CellRun) -> StageOutput:
    """The samples that meet the contract and the spec's validation rules; the others are failure events.

    The gate's verdict is stored with them. When a larger share of the discovered samples failed than the spec
    allows (in all, for one cause, or against the parent version), the gate closes: nothing downstream runs,
    however it is started, and the last publish stays.
    """
    counts = {"valid": 0, "invalid": 0, "rejected": 0}
    rows = (pa.Table.from_batches([batch]) for batch in run.read("sample_metadata"))
    written = run.write(_validate(run, rows, counts))
    counts["valid"] = written.rows
    return StageOutput(written, counts, _gate_checks(run, counts))


def _validate(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    contract = run.contract("validated_samples")
    names = contract.schema.names
    events = run.new_failure_spill()
    for table in rows:
        good, broken = contract.split(table.filter(pc.equal(table["probe"], "ok")).select(names))
        events += [{**row, "error_class": "contract_violation", "message": line} for row, line in broken]
        reasons = pa.array(rejection_reasons(good, run.validation), pa.string())
        rejected = good.append_column("message", reasons).filter(pc.is_valid(reasons)).to_pylist()
        events += [{**row, "error_class": REJECTED} for row in rejected]
        good = good.filter(pc.is_null(reasons))
        counts["invalid"] += len(broken)
        counts["rejected"] += len(rejected)
        yield good


def _gate_checks(run: CellRun, counts: dict[str, int]) -> list[Check]:
    """Evaluate the gates over all samples that failed before curation."""
    discovered = int(run.catalog.tables.dataset("dataset_registry", run.cell).count_rows())
    by_class = Counter(run.catalog.failures.by_class(run.cell, STAGES[: STAGES.index(run.asset)]))
    probed = run.snapshot.meta("sample_metadata")
    broken = (probed.rows if probed else 0) - run.count_rows("sample_metadata")
    by_class.update({"contract_violation": counts["invalid"] + broken, REJECTED: counts["rejected"]})
    return evaluate_gates(run, discovered, discovered - counts["valid"], by_class)
