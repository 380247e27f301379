"""Ray Data processing: the embeddable units of the kept samples, with their shard plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import complete
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.identity import segment_id
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_resources.compute.cache import KEY
from mm_resources.storage.spool import TableSpool

if TYPE_CHECKING:
    from mm_embed_kernels.kernels.transcribe import TranscribeKernel

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
_UNWRITTEN = f"""
SELECT DISTINCT ON (key) {KEY} AS key, p.content_hash, p.span, b.path, b."offset", b.size
FROM planned p JOIN blobs b USING (content_hash) WHERE p.text IS NULL
"""
_WRITTEN = f"""
SELECT p.* REPLACE (coalesce(p.text, t.text) AS text),
       t.status, t.error_class, t.message, t.retryable, t.attempt
FROM (SELECT *, {KEY} AS key FROM planned) p LEFT JOIN cached t ON p.key = t.key AND p.text IS NULL
"""


def _segmenter(run: CellRun) -> dict[str, Any]:
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
    extra_inputs=_segmenter,
)
def segments(run: CellRun) -> StageOutput:
    """Embeddable units of the kept samples, as spans into their blobs, with the shard plan for the workers.

    Where the spec asks for transcripts, the transcript of each is its text.
    """
    kernel, counts = (
        SegmentKernel(run.modality, run.catalog.blobs, run.limits),
        {"segments": 0, "samples": 0, "failed": 0},
    )
    with run.sql(
        _REQUESTS,
        curated=run.read("curated_samples", ["sample_id", "content_hash", "kept"]),
        blobs=run.read("content_blobs"),
    ) as requests:
        run.compute(kernel, requests)
    rows = run.tables_of(
        _ROWS,
        curated=run.read(
            "curated_samples", ["sample_id", "content_hash", "source_uri", "transcript", "kept"]
        ),
        cached=run.cached(kernel),
    )
    kept = run.total("curated_samples", "kept")
    written = run.write(_transcribed(run, _planned(run, rows, counts)))
    return StageOutput(
        written,
        {**counts, "shards": -(-counts["segments"] // SHARD_SEGMENTS)},
        [
            complete(
                "every_sample_segmented",
                kept,
                counts["samples"] + counts["failed"],
                "kept samples are segmented or failed",
            )
        ],
    )


def _planned(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    events = run.events()
    for table in rows:
        failed = pc.equal(table["status"], "failed")
        events += (refused := table.filter(failed)).to_pylist()
        found = _unnested(cut := table.filter(pc.invert(failed)), counts["segments"])
        counts["failed"] += refused.num_rows
        counts["samples"] += cut.num_rows
        counts["segments"] += found.num_rows
        yield found


def _unnested(samples: pa.Table, before: int) -> pa.Table:
    """A row for each segment of `samples`, which `before` segments precede in the plan."""
    lists = samples["segments"].combine_chunks()
    items = pa.Table.from_struct_array(pc.list_flatten(lists))
    # The source's transcript is the text of a sample that has one segment.
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


def _transcribed(run: CellRun, planned: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The segments, with transcripts of those that carry no text yet.

    All is computed here, before anything is written: Lance reads what it writes in threads that end, and what
    Ray started in one of them would end with it.
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
    with run.sql(_UNWRITTEN, planned=spool.reader(), blobs=run.read("content_blobs")) as requests:
        run.compute(kernel, requests)
    return _written(run, spool, kernel)


def _written(run: CellRun, spool: TableSpool, kernel: TranscribeKernel) -> Iterator[pa.Table]:
    events, names = run.events(), run.contract("segments").schema.names
    for table in run.tables_of(_WRITTEN, planned=spool.reader(), cached=run.cached(kernel)):
        events += table.filter(pc.equal(table["status"], "failed")).to_pylist()
        yield table.select(names)
