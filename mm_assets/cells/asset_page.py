"""The asset page of a stage beside its figures: columns with their origins, preview, plots, comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.fields import is_number
from mm_resources.tables.stage_tables import StageMeta

if TYPE_CHECKING:
    from mm_assets.cells.cell_run import CellRun

PREVIEW_ROWS, PREVIEW_COLUMNS = 8, 8
# Columns of names and states, which reveal nothing of a sample's content.
PREVIEWED = {
    *("sample_id", "segment_id", "feature_id", "key", "status", "probe", "kept", "rule", "split", "embedder"),
    *("stage", "table", "index"),
}


@dataclass(frozen=True)
class AssetPage:
    """The parts of an asset's page.

    Attributes:
        contract: columns that the asset holds.
        origins: column -> upstream assets that hand it on.
        preview: a few rows, keys and figures alone.
        plots: pictures (PNG) by name.
        table: where the stage's table lies.
        causes: error class -> samples that failed here for it.
        parent: how the stage differs from the parent version's, or "" where there is none.
    """

    contract: Contract
    origins: dict[str, list[str]]
    preview: pa.Table
    plots: dict[str, bytes]
    table: str
    causes: dict[str, int]
    parent: str


def asset_page(run: CellRun, meta: StageMeta) -> AssetPage:
    """Collect the page of a stage that a run has published with `meta`."""
    tables, columns = run.catalog.tables, _columns(run)
    return AssetPage(
        contract=columns,
        origins=_origins(run, columns),
        preview=_preview(run),
        plots={name: tables.plot(run.asset, run.cell, meta.run_id, name) for name in meta.plots},
        table=tables.uri(run.asset, run.cell),
        causes=run.catalog.failures.by_class(run.cell, [run.asset]) if meta.failed else {},
        parent=_since_parent(run, meta),
    )


def _columns(run: CellRun) -> Contract:
    """Columns of the rows that the asset stands for; of a feature table, its rows instead of their record."""
    if run.asset in ("feature_table", "feature_views"):
        return contracts.feature_contract(run.embedders[0].dimension, run.spec.user_fields)
    return run.contract(run.asset)


def _origins(run: CellRun, shown: Contract) -> dict[str, list[str]]:
    """For each column of the asset, the upstream assets that have it under the same name."""
    upstream = {name: set(run.contract(name).schema.names) for name in run.deps}
    found = {
        column: [name for name, columns in upstream.items() if column in columns]
        for column in shown.schema.names
    }
    # The nearest asset is the origin; those before it have handed the column to it.
    return {column: names[-1:] for column, names in found.items() if names}


def _preview(run: CellRun) -> pa.Table:
    """The first rows of the stage, keys and figures alone: no content leaves the store."""
    schema = run.contract(run.asset).schema
    columns = [
        item.name
        for item in schema
        if item.name in PREVIEWED or is_number(item.type) or item.type == pa.bool_()
    ][:PREVIEW_COLUMNS]
    return run.catalog.tables.read(run.asset, run.cell, columns, limit=PREVIEW_ROWS).read_all()


def _since_parent(run: CellRun, meta: StageMeta) -> str:
    """Compare the stage's counts with the parent version's, in one line."""
    if run.spec.parent is None:
        return ""
    before = run.catalog.tables.meta(run.asset, replace(run.cell, version=run.spec.parent))
    if before is None:
        return f"{run.spec.parent} has none"
    if before.data_version == meta.data_version:
        return f"as in {run.spec.parent}"
    figures = {"rows": (before.row_count, meta.row_count), "failed": (before.failed, meta.failed)}
    return f"{run.spec.parent}: " + ", ".join(
        f"{name} {old:,} -> {new:,}" for name, (old, new) in figures.items()
    )
