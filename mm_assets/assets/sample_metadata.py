"""Metadata extraction: the probe of every fetched sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, count_written
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.row_inputs import RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_resources.compute.probe_prefixes import REFUSED_REQUESTS, merge_prefixes

_REQUESTS = """
SELECT content_hash AS key, content_hash, '' AS span, path, "offset", size, NULL::VARCHAR AS text FROM blobs
"""
_ROWS = """
SELECT r.* EXCLUDE (status, tag), p.* EXCLUDE (key, status, environment, "at", seconds), p.status AS probe
FROM raw r JOIN blobs USING (content_hash) JOIN cached p ON r.content_hash = p.key
WHERE r.status = 'fetched' ORDER BY r.sample_id
"""


def _inputs(run: CellRun) -> dict[str, Any]:
    kept = {} if run.spec.on_partial == "reject" else {"on_partial": run.spec.on_partial}
    return {"probe": run.modality.fingerprint("probe"), **kept}


def _rules(run: CellRun) -> dict[str, Any] | None:
    """Return the probe; None where the readable part of a medium counts, whose failure is no event."""
    return _inputs(run) if run.spec.on_partial == "reject" else None


@cell_asset(
    group="2_curate",
    deps=["raw_assets", "content_blobs"],
    kinds=["ray", "lance"],
    pool="ray",
    checks=[("every_blob_probed", True)],
    extra_inputs=_inputs,
    row_inputs=RowInputs(
        {"raw_assets": columns_of("raw_assets"), "content_blobs": ("content_hash",)}, _rules
    ),
)
def sample_metadata(run: CellRun) -> StageOutput:
    """The probe of every fetched sample: media type by content, dimensions, language, time, quality signals.

    Media are opened in the sandbox, once for each content and probe version.
    """
    blobs = run.read("content_blobs", ["content_hash"])
    rows = run.query_tables(_ROWS, raw=run.read("raw_assets"), blobs=blobs, cached=_probe_results(run))
    fetched = run.total("content_blobs", "refcount")
    written = run.write(_record_failures(run, rows))
    found = count_written(run, written, "probe")
    counts = {"probed": found["ok"], "unreadable": found["failed"]}
    return StageOutput(
        written,
        counts,
        [
            completeness_check(
                "every_blob_probed", fetched, sum(counts.values()), "fetched samples have a probe"
            )
        ],
    )


def _probe_results(run: CellRun) -> pa.RecordBatchReader:
    """Probe the contents that the cache lacks; the readable part of a damaged medium replaces its failure."""
    kernel = ProbeKernel(run.modality, run.catalog.blobs, run.limits)
    with run.query(_REQUESTS, blobs=run.read("content_blobs")) as requests:
        run.compute(kernel, requests)
    if run.spec.on_partial == "reject":
        return run.cached_results(kernel)
    prefix = ProbeKernel(run.modality, run.catalog.blobs, run.limits, on_partial=run.spec.on_partial)
    with (
        run.query(_REQUESTS, blobs=run.read("content_blobs")) as probed,
        run.query(REFUSED_REQUESTS, requests=probed, cached=run.cached_results(kernel)) as requests,
    ):
        run.compute(prefix, requests)
    return merge_prefixes(run.cache_space(kernel), run.cache_space(prefix))


def _record_failures(run: CellRun, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    events = run.new_failure_spill()
    for table in rows:
        events += table.filter(pc.equal(table["probe"], "failed")).to_pylist()
        yield table.drop(["attempt"])
