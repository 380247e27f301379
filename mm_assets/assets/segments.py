"""Ray Data processing: the embeddable units of the kept samples, with their shard plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.row_inputs import RowInputs
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.identity import segment_id
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.kernels.transcribe import TranscribeKernel
from mm_resources.compute.cache import SPAN_KEY
from mm_resources.storage.spool import TableSpool

# A shard is a worker's share between two checkpoints.
SHARD_SEGMENTS = 4_096

_REQUESTS = """
SELECT DISTINCT ON (content_hash)
       content_hash AS key, content_hash, '' AS span, path, "offset", b.size, NULL::VARCHAR AS text
FROM curated JOIN blobs b USING (content_hash) WHERE kept
"""
_ROWS = """
SELECT c.sample_id, c.content_hash, c.source_uri, c.transcript, s.status, s.error_class, s.message,
       s.retryable, s.attempt, s.segments
FROM curated c JOIN cached s ON c.content_hash = s.key WHERE c.kept ORDER BY c.sample_id
"""
_UNTRANSCRIBED = f"""
SELECT DISTINCT ON (key) {SPAN_KEY} AS key, p.content_hash, p.span, b.path, b."offset", b.size
FROM planned p JOIN blobs b USING (content_hash) WHERE p.text IS NULL
"""
_TRANSCRIBED = f"""
SELECT p.* REPLACE (coalesce(p.text, t.text) AS text),
       t.status, t.error_class, t.message, t.retryable, t.attempt
FROM (SELECT *, {SPAN_KEY} AS key FROM planned) p LEFT JOIN cached t ON p.key = t.key AND p.text IS NULL
"""


def _inputs(run: CellRun) -> dict[str, Any]:
    kernel = run.transcribe_kernel
    return {
        "segment": run.modality.fingerprint("segment"),
        **({"transcribe": kernel.fingerprint} if kernel else {}),
    }


@cell_asset(
    group="3_embed",
    deps=["content_blobs", "curated_samples"],
    kinds=["ray", "lance"],
    pool="ray",
    checks=[("every_sample_segmented", True)],
    requires_models=True,
    extra_inputs=_inputs,
    row_inputs=RowInputs(
        {
            "curated_samples": ("sample_id", "content_hash", "source_uri", "transcript", "kept"),
            "content_blobs": ("content_hash",),
        },
        _inputs,
    ),
)
def segments(run: CellRun) -> StageOutput:
    """Embeddable units of the kept samples, as spans into their blobs, with the shard plan for the workers.

    Where the spec requests transcripts, segments carry their transcript in `text`.
    """
    kernel = SegmentKernel(run.modality, run.catalog.blobs, run.limits)
    counts = {"segments": 0, "samples": 0, "failed": 0}
    with run.query(
        _REQUESTS,
        curated=run.read("curated_samples", ["sample_id", "content_hash", "kept"]),
        blobs=run.read("content_blobs"),
    ) as requests:
        run.compute(kernel, requests)
    rows = run.query_tables(
        _ROWS,
        curated=run.read(
            "curated_samples", ["sample_id", "content_hash", "source_uri", "transcript", "kept"]
        ),
        cached=run.cached_results(kernel),
    )
    kept = run.total("curated_samples", "kept")
    written = run.write(_transcribe(run, _plan_segments(run, rows, counts)))
    counts["segments"], counts["samples"] = written.rows, run.samples_written or 0
    return StageOutput(
        written,
        {**counts, "shards": -(-counts["segments"] // SHARD_SEGMENTS)},
        [
            completeness_check(
                "every_sample_segmented",
                kept,
                counts["samples"] + counts["failed"],
                "kept samples are segmented or failed",
            )
        ],
    )


def _plan_segments(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    events = run.new_failure_spill()
    for table in rows:
        failed = pc.equal(table["status"], "failed")
        events += (refused := table.filter(failed)).to_pylist()
        found = _segment_rows(table.filter(pc.invert(failed)), counts["segments"])
        counts["failed"] += refused.num_rows
        counts["segments"] += found.num_rows
        yield found


def _segment_rows(samples: pa.Table, before: int) -> pa.Table:
    """Return a row for each segment of the samples; `before` segments precede them in the plan."""
    lists = samples["segments"].combine_chunks()
    items = pa.Table.from_struct_array(pc.list_flatten(lists))
    # The source's transcript becomes the text of a sample with one segment.
    given = pc.if_else(pc.equal(pc.list_value_length(lists), 1), samples["transcript"], None)
    named = samples.select(["sample_id", "content_hash"]).append_column("given", given)
    owner = named.take(pc.list_parent_indices(lists))
    ids = map(segment_id, owner["sample_id"].to_pylist(), items["span"].to_pylist())
    return pa.table(
        {
            "segment_id": pa.array(ids, pa.string()),
            "sample_id": owner["sample_id"],
            "content_hash": owner["content_hash"],
            "span": items["span"],
            "text": pc.if_else(
                pc.greater(pc.utf8_length(pc.fill_null(items["text"], "")), 0), items["text"], owner["given"]
            ),
            "cost": items["cost"],
            "shard": pa.array((before + np.arange(items.num_rows)) // SHARD_SEGMENTS, pa.int32()),
        }
    )


def _transcribe(run: CellRun, planned: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Transcribe the segments without text, and yield all segments.

    Transcripts are computed before the first row is written: Lance consumes rows in short-lived threads, and
    Ray, if started in one of them, would end with it.
    """
    kernel = run.transcribe_kernel
    if kernel is None:
        return planned
    schema = run.contract("segments").bare
    spool = TableSpool.of(
        pa.RecordBatchReader.from_batches(
            schema, (batch for table in planned for batch in table.to_batches())
        )
    )
    with run.query(_UNTRANSCRIBED, planned=spool.reader(), blobs=run.read("content_blobs")) as requests:
        run.compute(kernel, requests)
    return _attach_transcripts(run, spool, kernel)


def _attach_transcripts(run: CellRun, spool: TableSpool, kernel: TranscribeKernel) -> Iterator[pa.Table]:
    events, names = run.new_failure_spill(), run.contract("segments").schema.names
    for table in run.query_tables(_TRANSCRIBED, planned=spool.reader(), cached=run.cached_results(kernel)):
        events += table.filter(pc.equal(table["status"], "failed")).to_pylist()
        yield table.select(names)
