"""What Dagster is told of a materialization: figures, schema, checks, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mm_assets.checks import Check
from mm_embed_kernels.contracts import Contract
from mm_resources.store import Cell
from mm_resources.tables import StageMeta


def materialize_result(
    asset: str,
    cell: Cell,
    meta: StageMeta,
    contract: Contract,
    checks: list[Check],
    work: Mapping[str, tuple[int, int]],
    table: str,
    unchanged: bool,
) -> dg.MaterializeResult[Any]:
    """The one result of an asset body.

    Args:
        contract: columns that the asset holds.
        work: kernel -> (rows computed, rows reused).
        table: where the stage's table lies.
        unchanged: whether the stage was skipped because nothing changed.
    """
    figures = {**meta.summary, "failed here": meta.failed} if meta.failed else meta.summary
    lines = "\n".join(f"| {name} | {_shown(value)} |" for name, value in figures.items())
    metadata: dict[str, Any] = {
        "dagster/row_count": meta.row_count,
        "dagster/column_schema": column_schema(contract),
        "summary": dg.MetadataValue.md(f"| figure | value |\n|---|---|\n{lines}" if lines else "no rows"),
        "unchanged": unchanged,
        "computed": dg.MetadataValue.json({kernel: computed for kernel, (computed, _) in work.items()}),
        "reused": dg.MetadataValue.json({kernel: reused for kernel, (_, reused) in work.items()}),
        "table": dg.MetadataValue.path(table),
        "written_by_run": meta.run_id,
        "next": dg.MetadataValue.md(_next(asset, cell, meta)),
    }
    results = [
        dg.AssetCheckResult(
            check_name=check.name,
            passed=check.passed,
            description=f"overridden: {check.description}" if check.waived else check.description,
            metadata={name: plain(value) for name, value in check.figures.items()},
            severity=dg.AssetCheckSeverity.ERROR if check.blocking and not check.waived else dg.AssetCheckSeverity.WARN,
        )
        for check in checks
    ]
    return dg.MaterializeResult(data_version=dg.DataVersion(meta.data_version), metadata=metadata, check_results=results)


def column_schema(contract: Contract) -> dg.TableSchema:
    """The Dagster column schema of a contract."""
    return dg.TableSchema(columns=[dg.TableColumn(name=name, type=kind, description=text) for name, kind, text in contract.describe()])


def plain(value: Any) -> Any:
    """A figure as check metadata takes it."""
    return value if isinstance(value, (int, float, str, bool)) else str(value)


def _next(asset: str, cell: Cell, meta: StageMeta) -> str:
    name, modality = cell.dataset_version, cell.modality
    if meta.blocked:
        return f"`mm failures {name} --modality {modality}`, then mend the cause or `mm backfill {name} --override-gate REASON`"
    if meta.failed:
        return f"`mm failures {name} --modality {modality} --stage {asset}`"
    if asset == "feature_views":
        return f'`mm search "..." --dataset-version {name} --modality {modality}`'
    return f"`mm status {name}`"


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
