"""LanceDB storage: one indexed candidate table per embedder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cached_vectors import open_vectors
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, embedder_inputs
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import sql
from mm_embed_kernels.contracts import FEATURE_TABLE, FEATURES, feature_contract
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.sql import append_columns, number_rows
from mm_resources.compute.cache import CachedVectors
from mm_resources.features.feature_tables import table_name

# The row of each vector in the cache, and the user's columns of the sample. The feature rows themselves are
# wide and already in the order of their vectors: they are read beside this result, not sorted again.
_COLUMNS = """
SELECT n.n, n.feature_id AS same, v._rowid AS row_id{user}
FROM features n LEFT JOIN vectors v ON n.cache_key = v.key{listing} WHERE n.embedder = {embedder} ORDER BY n.n
"""
_LISTING = " LEFT JOIN listing l ON n.sample_id = l.sample_id"


def _is_still_valid(run: CellRun) -> bool:
    """Check that the last run's candidates still exist: upkeep removes those without a pin."""
    entries = run.read("feature_table", ["table", "lance_version"]).read_all().to_pylist()
    return all(run.catalog.features.has(entry["table"], entry["lance_version"]) for entry in entries)


@cell_asset(
    group="4_serve",
    deps=["dataset_registry", "normalized_features"],
    kinds=["lancedb"],
    code_version="2",
    checks=[("rows_complete", True)],
    requires_models=True,
    extra_inputs=embedder_inputs,
    is_still_valid=_is_still_valid,
    shown_contract=FEATURES,
)
def feature_table(run: CellRun) -> StageOutput:
    """One indexed candidate LanceDB table per embedder: vectors, labels, splits, decisions and lineage.

    Readers see a candidate only after `feature_views` has tested and pinned it.
    """
    entries = [_write(run, embedder) for embedder in run.embedders]
    written = sum(entry["rows"] for entry in entries)
    return StageOutput(
        run.write([FEATURE_TABLE.rows(entries)]),
        {entry["table"]: f"{entry['rows']:,} rows, {entry['index']}, {entry['space']}" for entry in entries},
        [
            completeness_check(
                "rows_complete",
                run.count_rows("normalized_features"),
                written,
                "feature rows are in the tables",
            )
        ],
        row_count=written,
    )


def _write(run: CellRun, embedder: Embedder) -> dict[str, Any]:
    """Write and index one embedder's candidate; return its row of the stage."""
    user = run.spec.user_fields
    contract, name = feature_contract(embedder.dimension, user), table_name(run.cell, embedder.name)
    vectors = open_vectors(run, embedder)
    candidate = run.catalog.features.write_candidate(
        name, contract, vectors.attach(_rows(run, embedder, vectors), embedder.dimension)
    )
    return {
        "embedder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "primary": embedder is run.embedders[0],
        "table": name,
        "lance_version": candidate.lance_version,
        "rows": candidate.rows,
        "dimension": embedder.dimension,
        "space": embedder.space,
        "index": candidate.index,
        "digest": candidate.digest,
    }


def _rows(run: CellRun, embedder: Embedder, vectors: CachedVectors) -> Iterator[pa.Table]:
    """Yield one embedder's feature rows with the user's columns and the ``row_id`` of each vector.

    Rows without a cached vector are left out.
    """
    user = [item.name for item in run.spec.user_fields]
    streams = {
        "features": number_rows(partial(run.read, "normalized_features"))(
            ["feature_id", "sample_id", "cache_key", "embedder"]
        ),
        "vectors": vectors.row_ids(),
        **({"listing": run.read("dataset_registry", ["sample_id", *user])} if user else {}),
    }
    statement = _COLUMNS.format(
        user="".join(f', l."{name}"' for name in user),
        listing=_LISTING if user else "",
        embedder=sql.literal(embedder.name),
    )
    tables = (pa.Table.from_batches([batch]) for batch in run.read("normalized_features"))
    own = (table.filter(pc.equal(table["embedder"], embedder.name)) for table in tables)
    with sql.query(statement, **streams) as more:
        for table in append_columns(own, more):
            if not table["same"].equals(table["feature_id"]):
                # Both reads are of one version: only an unordered scan could differ.
                raise RuntimeError(
                    f"two scans of normalized_features of {run.cell.partition_key} differ in order"
                )
            yield table.filter(table["row_id"].is_valid()).drop(["cache_key", "n", "same"])
