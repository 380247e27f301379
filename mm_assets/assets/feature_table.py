from __future__ import annotations

from typing import Any

import dagster as dg

from mm_assets.assets.embeddings import embedder_inputs
from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun
from mm_assets.checks import complete
from mm_embed_kernels import relational
from mm_embed_kernels.contracts import FEATURE_TABLE, FEATURES, feature_contract
from mm_embed_kernels.embedders import Embedder
from mm_resources.features import table_name

_ROWS = """
SELECT n.* EXCLUDE (cache_key), v._rowid AS place{user}
FROM features n JOIN places v ON n.cache_key = v.key JOIN listing l ON n.sample_id = l.sample_id
WHERE n.embedder = {embedder} ORDER BY place, n.feature_id
"""


def _stands(run: CellRun) -> bool:
    """Whether the candidates of the last run are still there: one that was never pinned is removed some day."""
    entries = run.read("feature_table", ["table", "lance_version"]).read_all().to_pylist()
    return all(run.features.has(entry["table"], entry["lance_version"]) for entry in entries)


@cell_asset(
    group="4_serve",
    deps=["dataset_registry", "normalized_features"],
    kinds=["lancedb"],
    code_version="2",
    checks=[("rows_complete", True)],
    embeds=True,
    depends=embedder_inputs,
    holds=_stands,
    shows=FEATURES,
)
def feature_table(run: CellRun) -> dg.MaterializeResult[Any]:
    """One indexed candidate LanceDB table per embedder: vectors beside labels, splits, decisions and lineage.

    A candidate is seen by no reader until `feature_views` has tested and pinned it.
    """
    entries = [_write(run, embedder) for embedder in run.embedders]
    written = sum(entry["rows"] for entry in entries)
    return run.publish(
        [FEATURE_TABLE.rows(entries)],
        summary=lambda: {entry["table"]: f"{entry['rows']:,} rows, {entry['index']}, {entry['space']}" for entry in entries},
        checks=lambda: [complete("rows_complete", run.rows("normalized_features"), written, "feature rows are in the tables")],
        row_count=lambda: written,
    )


def _write(run: CellRun, embedder: Embedder) -> dict[str, Any]:
    """Write and index one embedder's candidate; what the publish needs to know of it."""
    user = run.spec.user_fields
    contract, name = feature_contract(embedder.dimension, user), table_name(run.cell, embedder.name)
    vectors = run.vectors(embedder)
    columns = "".join(f', l."{item.name}"' for item in user)
    rows = run.tables_of(
        _ROWS.format(user=columns, embedder=relational.literal(embedder.name)),
        features=run.read("normalized_features"),
        places=vectors.places(),
        listing=run.read("dataset_registry", ["sample_id", *(item.name for item in user)]),
    )
    version, count, index, content = run.features.write_candidate(name, contract, vectors.attach(rows, embedder.dimension))
    return {
        "embedder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "primary": embedder is run.embedders[0],
        "table": name,
        "lance_version": version,
        "rows": count,
        "dimension": embedder.dimension,
        "space": embedder.space,
        "index": index,
        "digest": content,
    }
