"""Results of stages for Dagster: figures, schema, checks, and the next commands."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import dagster as dg
import pyarrow as pa

from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.asset_page import AssetPage
from mm_assets.cells.checks import Check
from mm_assets.cells.figures import Effort, scalar_figures
from mm_assets.cells.gates import override_command
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.error_classes import lookup
from mm_embed_kernels.escapes import escape_markdown, escape_terminal
from mm_resources.cell import Cell
from mm_resources.settings import Settings
from mm_resources.tables.failure_events import may_be_redriven
from mm_resources.tables.stage_refs import StageMeta

# Views of the explorer that show more of a stage than its samples.
_VIEWS = {"curated_samples": "curate", "feature_table": "map", "lineage_report": "cost"}


def materialize_result(
    asset: str,
    cell: Cell,
    meta: StageMeta,
    page: AssetPage,
    checks: list[Check],
    effort: Effort,
) -> dg.MaterializeResult[Any]:
    """Build the Dagster result of a stage."""
    figures = {**meta.summary, **{f"failed here: {cause}": count for cause, count in page.causes.items()}}
    if page.parent:
        figures["since the parent version"] = page.parent
    lines = "\n".join(
        f"| {escape_markdown(name)} | {_format(value)} |"
        for name, value in figures.items()
        if value not in (None, "", {}, [])
    )
    work = {
        "computed": {kernel: computed for kernel, (computed, _) in effort.work.items() if computed},
        "reused": {kernel: reused for kernel, (_, reused) in effort.work.items() if reused},
    }
    view = "failures" if page.causes else _VIEWS.get(asset, "samples")
    # What to do comes first, as the page shows it.
    metadata: dict[str, Any] = {
        "next": dg.MetadataValue.md(_next_command(asset, cell, meta, checks)),
        **(
            {"explorer": dg.MetadataValue.url(url)}
            if (url := explorer_page(view, cell.dataset_version, cell.modality))
            else {}
        ),
        **({"failures": dg.MetadataValue.md(_causes(asset, cell, page.causes))} if page.causes else {}),
        "summary": dg.MetadataValue.md(f"| figure | value |\n|---|---|\n{lines}" if lines else "no rows"),
        "dagster/row_count": meta.row_count,
        "dagster/partition_row_count": meta.row_count,
        **scalar_figures(meta, checks, effort),
        "dagster/column_schema": column_schema(page.contract),
        "dagster/column_lineage": _lineage(page.origins),
        **{name: _picture(name, png) for name, png in page.plots.items()},
        "unchanged": effort.unchanged,
        **{name: dg.MetadataValue.json(counts) for name, counts in work.items() if counts},
        "preview": _preview(page.preview),
        "seconds": round(effort.seconds, 2),
        "table": dg.MetadataValue.path(page.table),
        "written_by_run": meta.run_id,
    }
    results = [dg.AssetCheckResult(check_name=check.name, **check_fields(check)) for check in checks]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(meta.data_version), metadata=metadata, check_results=results
    )


def explorer_page(view: str, dataset_version: str, modality: str) -> str:
    """Return the address of a view of the explorer; "" where `MM_EXPLORER_URL` names no explorer."""
    base = Settings.from_environment().explorer_url
    named = urlencode({"version": dataset_version, "modality": modality})
    return f"{base}/{view}?{named}" if base else ""


def check_evaluation(asset: dg.AssetKey, partition: str, check: Check) -> dg.AssetCheckEvaluation:
    """Return the outcome of a check that is reported outside a materialization."""
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check.name,
        partition=partition,
        blocking=check.blocking,
        **check_fields(check),
    )


def check_fields(check: Check) -> dict[str, Any]:
    """Return the outcome of a check as Dagster's results and evaluations take it."""
    return {
        "passed": check.passed,
        "description": escape_terminal(
            f"overridden: {check.description}" if check.waived else check.description
        ),
        "metadata": {name: metadata_value(value) for name, value in check.figures.items()},
        "severity": dg.AssetCheckSeverity.ERROR
        if check.blocking and not check.waived
        else dg.AssetCheckSeverity.WARN,
    }


def column_schema(contract: Contract) -> dg.TableSchema:
    """Return the Dagster column schema of a contract."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=kind, description=text) for name, kind, text in contract.describe()
        ]
    )


def _lineage(origins: Mapping[str, list[str]]) -> dg.TableColumnLineage:
    deps = {
        column: [dg.TableColumnDep(asset_key=asset_key(name), column_name=column) for name in names]
        for column, names in origins.items()
    }
    return dg.TableColumnLineage(deps_by_column=deps)


def _picture(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(
        f"![{escape_markdown(name)}](data:image/png;base64,{base64.b64encode(png).decode()})"
    )


def _preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    if not rows.num_rows:
        return dg.MetadataValue.md("no rows")
    lines = [" | ".join(_truncate(value) for value in row.values()) for row in rows.to_pylist()]
    head = " | ".join(map(escape_markdown, rows.column_names))
    return dg.MetadataValue.md(
        "\n".join([f"| {head} |", "|" + "---|" * rows.num_columns, *(f"| {line} |" for line in lines)])
    )


def _truncate(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return escape_markdown(text if len(text) <= 40 else f"{text[:18]}…{text[-20:]}")


def metadata_value(value: Any) -> Any:
    """Return a figure in a type that check metadata accepts."""
    return value if isinstance(value, (int, float, bool)) else escape_terminal(value)


def _causes(asset: str, cell: Cell, causes: Mapping[str, int]) -> str:
    """Return a table of failed samples by cause, with the next commands below it.

    The commands stand once: Dagster folds a text of a thousand characters into a link.
    """
    chosen = f"{cell.dataset_version} --modality {cell.modality} --stage {asset} --class CAUSE"
    lines = ["| cause | samples | what to do |", "|---|---|---|"]
    for cause, count in causes.items():
        declared = lookup(cause)
        action = declared.action if declared else "not declared by this installation"
        action = action.replace("|", "\\|")
        lines.append(f"| {escape_markdown(cause)} | {count:,} | {action} |")
    lines += ["", f"list: `mm failures {chosen}`"]
    decided = [cause for cause in causes if not may_be_redriven(asset, cause)]
    if len(decided) < len(causes):
        lines += ["", f"try again: `mm redrive {chosen}`"]
    if decided:
        lines += ["", f"change the spec: {escape_markdown(', '.join(decided))}"]
    return "\n".join(lines)


def _next_command(asset: str, cell: Cell, meta: StageMeta, checks: list[Check]) -> str:
    name, modality = cell.dataset_version, cell.modality
    if meta.blocked:
        override = override_command(cell, checks)
        command = (
            f"`mm failures {name} --modality {modality}`, "
            f"fix the cause, then `mm redrive {name} --modality {modality}`"
        )
        return f"{command}, or `{override}`" if override else command
    if meta.failed:
        failures = f"`mm failures {name} --modality {modality} --stage {asset}`"
        return f"{failures}; `mm failures {name} --suggest` proposes rules"
    if asset == "feature_views":
        return f'`mm search "..." --dataset-version {name} --modality {modality}`'
    return f"`mm status {name}`"


def _format(value: Any) -> str:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_count else escape_markdown(value)
