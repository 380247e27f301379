from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun
from mm_assets.checks import Check
from mm_embed_kernels import relational


def _gate(run: CellRun) -> dict[str, Any]:
    return {"gates": run.spec.gates.model_dump()}


@cell_asset(
    group="2_curate",
    deps=["dataset_registry", "sample_metadata"],
    kinds=["pandera", "lance"],
    checks=[("failed_share", True)],
    depends=_gate,
)
def validated_samples(run: CellRun) -> dg.MaterializeResult[Any]:
    """The samples that meet the contract; every other one is a failure event. The gate's verdict is stored with them.

    When a larger share of the discovered samples failed than the spec allows, the gate closes: nothing downstream
    runs, however it is started, and what was published stays.
    """
    counts = {"valid": 0, "invalid": 0}
    rows = (pa.Table.from_batches([batch]) for batch in run.read("sample_metadata"))
    return run.publish(_valid(run, rows, counts), summary=lambda: counts, checks=lambda: [failed_share(run, counts["valid"])])


def _valid(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    contract = run.contract("validated_samples")
    names = contract.schema.names
    events = run.events()
    for table in rows:
        good, broken = contract.split(table.filter(pc.equal(table["probe"], "ok")).select(names))
        events += [{**row, "error_class": "contract_violation", "message": line} for row, line in broken]
        counts["invalid"] += len(broken)
        counts["valid"] += good.num_rows
        yield good


def failed_share(run: CellRun, valid: int) -> Check:
    """Share of the discovered samples that failed before curation, against the spec's threshold."""
    listed = run.tables.read("dataset_registry", run.cell, ["sample_id"])
    discovered = relational.fetch("SELECT count(*) AS n FROM listed", listed=listed)["n"][0].as_py()
    share = (discovered - valid) / discovered if discovered else 0.0
    limit = run.spec.gates.max_failed_share
    text = f"{discovered - valid:,} of {discovered:,} samples failed: {share:.1%}, allowed are {limit:.1%} (gates.max_failed_share)"
    return Check(
        "failed_share", share <= limit, text, {"failed": discovered - valid, "discovered": discovered, "share": share, "threshold": limit}
    )
