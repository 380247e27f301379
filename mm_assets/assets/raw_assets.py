"""Raw ingestion: fetch the listed samples, one row per discovered sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, count_written, validation_inputs
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.row_inputs import RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.validation.bounds import reject_before_download
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, REQUESTS, FetchKernel

_ROWS = f"""
SELECT l.* EXCLUDE (content_hash), CASE WHEN c.status = 'ok' THEN 'fetched' ELSE 'failed' END AS status,
       c.content_hash, c.size AS bytes,
       coalesce(l.error_class, c.error_class) AS cause, coalesce(l.message, c.message) AS why,
       coalesce(c.retryable, false) AS retryable, c.attempt
FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l
LEFT JOIN cached c ON l.fetch_key = c.key AND l.error_class IS NULL
ORDER BY l.sample_id
"""

# Place, tag and size decide only where the content is not known; see the contract. A row that a version
# shares with an earlier one keeps the time of modification that was listed first.
_LISTED = columns_of("dataset_registry", "modified_at")


def _rules(run: CellRun) -> dict[str, Any] | None:
    """Return the bounds, and the part of each source that changes bytes; None where bounds need sizes."""
    if any(bound.column == "size" for bound in run.validation):
        return None
    return {
        **validation_inputs(run),
        "flavours": FetchKernel(run.spec, run.catalog.blobs).flavours().to_pylist(),
    }


@cell_asset(
    group="1_ingest",
    deps=["dataset_registry"],
    kinds=["lance"],
    pool="network",
    checks=[("every_sample_recorded", True)],
    extra_inputs=validation_inputs,
    # What `content_blobs` cannot fetch again is no longer in the fetch cache.
    row_inputs=RowInputs({"dataset_registry": _LISTED}, _rules, evicting=("content_blobs",)),
)
def raw_assets(run: CellRun) -> StageOutput:
    """One row per discovered sample: source, fetch status and content hash; the bytes go to the blob store.

    A source object that was read before, with the same etag or size and mtime, is not read again; one that
    the spec's validation rules reject by the columns of the listing is never read.
    """
    kernel = FetchKernel(run.spec, run.catalog.blobs)
    with run.query(
        REQUESTS,
        listing=reject_before_download(run.read("dataset_registry"), run.validation),
        flavours=kernel.flavours(),
    ) as requests:
        run.compute(kernel, requests)
    rows = run.query_tables(
        _ROWS,
        listing=reject_before_download(run.read("dataset_registry"), run.validation),
        flavours=kernel.flavours(),
        cached=run.cached_results(kernel),
    )
    written = run.write(_record_failures(run, rows))
    found = count_written(run, written, "status")
    counts = {status: found[status] for status in ("fetched", "failed")}
    return StageOutput(
        written,
        counts,
        [
            completeness_check(
                "every_sample_recorded",
                run.count_rows("dataset_registry"),
                sum(counts.values()),
                "listed samples have a row",
            )
        ],
    )


def _record_failures(run: CellRun, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    events = run.new_failure_spill()
    names = run.contract("raw_assets").schema.names
    for table in rows:
        for row in table.filter(pa.compute.equal(table["status"], "failed")).to_pylist():
            events.append(
                {**row, "error_class": row["cause"] or "fetch_error", "message": row["why"] or "not fetched"}
            )
        yield table.drop(["size"]).rename_columns({"bytes": "size"}).select(names)
