"""Embedding workers: a vector for every segment and embedder, through the compute cache."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cached_vectors import compute_vectors
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, count_written, embedder_inputs, embedder_rules
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.row_inputs import RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import sql
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.identity import feature_id
from mm_resources.compute.cache import inputs_of

_ROWS = """
SELECT s.segment_id, s.sample_id, s.content_hash, s.span, e.key AS cache_key, e.status, e.seconds,
       e.error_class, e.message, e.retryable, e.attempt, c.source_uri
FROM (SELECT *, {key} AS key FROM segments WHERE {readable}) s JOIN cached e USING (key)
JOIN curated c ON s.sample_id = c.sample_id ORDER BY s.segment_id
"""
_HEAD = ["key", "status", "error_class", "message", "retryable", "attempt", "seconds", "at"]


@cell_asset(
    group="3_embed",
    deps=["content_blobs", "curated_samples", "segments"],
    kinds=["ray", "pytorch"],
    pool="gpu",
    code_version="2",
    checks=[("every_segment_answered", True)],
    requires_models=True,
    extra_inputs=embedder_inputs,
    row_inputs=RowInputs(
        {"segments": columns_of("segments"), "curated_samples": ("sample_id", "source_uri")}, embedder_rules
    ),
)
def embeddings(run: CellRun) -> StageOutput:
    """Per segment and embedder: cache key, status and cost. The vectors stay in the compute cache.

    A vector is computed once for each input (a span of a blob, or a text) and embedder fingerprint, for all
    datasets and versions.
    """
    wanted = sum(_compute(run, embedder) for embedder in run.embedders)
    written = run.write(_record_results(run))
    found = count_written(run, written, "status")
    counts = {status: found[status] for status in ("ok", "failed")}
    return StageOutput(
        written,
        {"embedders": ", ".join(embedder.name for embedder in run.embedders), **counts},
        [
            completeness_check(
                "every_segment_answered",
                wanted,
                sum(counts.values()),
                "segments have a vector or a recorded failure",
            )
        ],
    )


def _compute(run: CellRun, embedder: Embedder) -> int:
    """Run one embedder on the segments that the cache lacks; return the number of segments that it reads."""
    compute_vectors(run, embedder)
    counted = sql.fetch(
        f"SELECT count(*) AS n FROM segments WHERE {inputs_of(embedder)['readable']}",
        segments=run.read_all("segments", ["segment_id", "text"]),
    )
    return int(counted["n"][0].as_py())


def _record_results(run: CellRun) -> Iterator[pa.Table]:
    events = run.new_failure_spill()
    names = [
        name
        for name in run.contract("embeddings").schema.names
        if name not in ("feature_id", "embedder", "fingerprint")
    ]
    for embedder in run.embedders:
        for table in _cached_results(run, embedder):
            ids = table["segment_id"].to_pylist()
            failed = table.filter(pc.equal(table["status"], "failed")).to_pylist()
            events += [{**row, "embedder": embedder.name} for row in failed]
            rows = table.select(names)
            rows = rows.append_column(
                "feature_id", pa.array([feature_id(item, embedder.fingerprint) for item in ids], pa.string())
            )
            rows = rows.append_column("embedder", pa.array([embedder.name] * table.num_rows, pa.string()))
            yield rows.append_column(
                "fingerprint", pa.array([embedder.fingerprint] * table.num_rows, pa.string())
            )


def _cached_results(run: CellRun, embedder: Embedder) -> Iterator[pa.Table]:
    return run.query_tables(
        _ROWS.format(**inputs_of(embedder)),
        segments=run.read("segments", ["segment_id", "sample_id", "content_hash", "span", "text"]),
        curated=run.read("curated_samples", ["sample_id", "source_uri"]),
        cached=run.cached_results(run.embed_kernel(embedder), _HEAD),
    )
