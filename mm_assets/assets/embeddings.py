from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa

from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun
from mm_assets.checks import complete
from mm_embed_kernels.identity import feature_id
from mm_resources.cache import LATEST

# `cache_key` of identity.py, in SQL.
KEY = "content_hash || '#' || span"
_REQUESTS = f"""
SELECT {KEY} AS key, s.content_hash, s.span, b.path, b."offset", b.size, s.text
FROM segments s JOIN blobs b USING (content_hash)
"""
_ROWS = f"""
SELECT s.segment_id, s.sample_id, s.content_hash, s.span, e.key AS cache_key, e.status, e.seconds,
       e.error_class, e.message, e.retryable, e.attempt, c.source_uri
FROM (SELECT *, {KEY} AS key FROM segments) s JOIN ({LATEST}) e USING (key)
JOIN curated c ON s.sample_id = c.sample_id ORDER BY s.segment_id
"""
_HEAD = ["key", "status", "error_class", "message", "retryable", "attempt", "seconds", "at"]


def embedder_inputs(run: CellRun) -> dict[str, Any]:
    return {"embedder": run.embedder.open().fingerprint}


@cell_asset(
    group="3_embed",
    deps=["content_blobs", "curated_samples", "segments"],
    kinds=["ray", "pytorch"],
    checks=[("every_segment_answered", True)],
    embeds=True,
    depends=embedder_inputs,
)
def embeddings(run: CellRun) -> dg.MaterializeResult[Any]:
    """Per segment and embedder: cache key, status and cost. The vectors themselves stay in the compute cache.

    A vector is computed once per content, span and embedder fingerprint, in whatever dataset and version it occurs.
    """
    kernel, counts = run.embedder.kernel(run.blobs, run.limits), {"ok": 0, "failed": 0}
    with run.sql(_REQUESTS, segments=run.read("segments"), blobs=run.read("content_blobs")) as requests:
        run.compute(kernel, requests)
    rows = run.tables_of(
        _ROWS,
        segments=run.read("segments", ["segment_id", "sample_id", "content_hash", "span"]),
        curated=run.read("curated_samples", ["sample_id", "source_uri"]),
        cached=run.cached(kernel, _HEAD),
    )
    return run.publish(
        _recorded(run, rows, counts),
        summary=lambda: {"embedder": kernel.embedder.name, "dimension": kernel.embedder.dimension, **counts},
        checks=lambda: [
            complete("every_segment_answered", run.rows("segments"), sum(counts.values()), "segments have a vector or a recorded failure")
        ],
    )


def _recorded(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    embedder = run.embedder.open()
    events: list[dict[str, Any]] = []
    run.fail(events)
    names = [name for name in run.contract("embeddings").schema.names if name not in ("feature_id", "embedder", "fingerprint")]
    for table in rows:
        statuses, ids = table["status"].to_pylist(), table["segment_id"].to_pylist()
        counts["ok"] += statuses.count("ok")
        counts["failed"] += statuses.count("failed")
        events += [{**row, "embedder": embedder.name} for row in table.to_pylist() if row["status"] == "failed"]
        rows_ = table.select(names)
        rows_ = rows_.append_column("feature_id", pa.array([feature_id(item, embedder.fingerprint) for item in ids], pa.string()))
        rows_ = rows_.append_column("embedder", pa.array([embedder.name] * table.num_rows, pa.string()))
        yield rows_.append_column("fingerprint", pa.array([embedder.fingerprint] * table.num_rows, pa.string()))
