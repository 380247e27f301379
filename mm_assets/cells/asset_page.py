"""Parts of the asset page of a stage: columns with their origins, preview, plots, comparison."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.fields import is_number
from mm_resources.tables.stage_refs import StageMeta

PREVIEW_ROWS, PREVIEW_COLUMNS = 8, 8
# Columns of keys and states, without content of samples: those that say most come first, ids last.
_STATES = ("key", "status", "probe", "kept", "rule", "split", "stage", "table", "embedder", "index")
_IDS = ("sample_id", "segment_id", "feature_id")
PREVIEWED = {*_STATES, *_IDS}


@dataclass(frozen=True)
class AssetPage:
    """The parts of an asset's page.

    Attributes:
        contract: columns of the asset's rows.
        origins: column -> upstream assets that pass the column on.
        preview: the first rows; columns of keys, states and figures that have values, no content.
        plots: PNG by name.
        table: URI of the stage's table.
        causes: error class -> samples that failed in this stage.
        parent: difference from the parent version's stage; "" without a parent.
    """

    contract: Contract
    origins: dict[str, list[str]]
    preview: pa.Table
    plots: dict[str, bytes]
    table: str
    causes: dict[str, int]
    parent: str


def asset_page(run: CellRun, meta: StageMeta) -> AssetPage:
    """Collect the parts of the page of a stage that a run has published with `meta`."""
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
    """Return the columns of the asset's rows; for feature tables, of their rows instead of their records."""
    if run.asset in ("feature_table", "feature_views"):
        return contracts.feature_contract(run.embedders[0].dimension, run.spec.user_fields)
    return run.contract(run.asset)


def _origins(run: CellRun, shown: Contract) -> dict[str, list[str]]:
    """Return the upstream asset that each column comes from: the nearest with a column of that name."""
    upstream = {name: set(run.contract(name).schema.names) for name in run.deps}
    found = {
        column: [name for name, columns in upstream.items() if column in columns]
        for column in shown.schema.names
    }
    return {column: names[-1:] for column, names in found.items() if names}


def _preview(run: CellRun) -> pa.Table:
    """Return the first rows of the stage; key and numeric columns only, no content."""
    schema = run.contract(run.asset).schema
    columns = [
        item.name
        for item in schema
        if item.name in PREVIEWED or is_number(item.type) or item.type == pa.bool_()
    ]
    rows = run.catalog.tables.read(run.asset, run.cell, columns, limit=PREVIEW_ROWS).read_all()
    return rows.select(informative_columns(rows))


def informative_columns(rows: pa.Table) -> list[str]:
    """Return the columns of a preview that have values: states, figures that differ, others, an id."""

    def rank(name: str) -> tuple[int, int]:
        if name in _STATES:
            return 0, _STATES.index(name)
        if name in _IDS:
            return 3, _IDS.index(name)
        return (1 if len(rows[name].unique()) > 1 else 2), rows.column_names.index(name)

    filled = [name for name in rows.column_names if not rows.num_rows or rows[name].null_count < len(rows)]
    ranked = sorted(filled, key=rank)
    ids = [name for name in ranked if name in _IDS]
    return [name for name in ranked if name not in ids][: PREVIEW_COLUMNS - len(ids[-1:])] + ids[-1:]


def _since_parent(run: CellRun, meta: StageMeta) -> str:
    """Compare the stage's counts with the parent version's, in one line."""
    if run.parent_cell is None:
        return ""
    parent, before = run.parent_cell.version, run.catalog.tables.meta(run.asset, run.parent_cell)
    if before is None:
        return f"not materialized in {parent}"
    if before.data_version == meta.data_version:
        return f"unchanged since {parent}"
    figures = {"rows": (before.row_count, meta.row_count), "failed": (before.failed, meta.failed)}
    return f"{parent}: " + ", ".join(f"{name} {old:,} -> {new:,}" for name, (old, new) in figures.items())
