from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun
from mm_assets.checks import complete
from mm_embed_kernels.kernel import PARTIAL, ProbeKernel
from mm_resources.cache import LATEST

_REQUESTS = "SELECT content_hash AS key, content_hash, '' AS span, path, \"offset\", size, NULL::VARCHAR AS text FROM blobs"
_ROWS = f"""
SELECT r.* EXCLUDE (status, tag), p.* EXCLUDE (key, status, environment, "at", seconds), p.status AS probe
FROM raw r JOIN blobs USING (content_hash) JOIN ({LATEST}) p ON r.content_hash = p.key WHERE r.status = 'fetched' ORDER BY r.sample_id
"""


_PARTIAL = f"""
SELECT r.* FROM ({_REQUESTS}) r JOIN ({LATEST}) p USING (key) WHERE p.status = 'failed' AND p.error_class IN {PARTIAL}
"""


def _probe(run: CellRun) -> dict[str, Any]:
    kept = {} if run.spec.on_partial == "reject" else {"on_partial": run.spec.on_partial}
    return {"probe": run.modality.fingerprint("probe"), **kept}


@cell_asset(
    group="2_curate",
    deps=["raw_assets", "content_blobs"],
    kinds=["ray", "lance"],
    pool="ray",
    checks=[("every_blob_probed", True)],
    depends=_probe,
)
def sample_metadata(run: CellRun) -> dg.MaterializeResult[Any]:
    """The probe of every fetched sample: media type by content, dimensions, language, time, quality signals.

    Bytes are opened in the sandbox, once per content and probe version, whatever names and versions it has.
    """
    counts = {"probed": 0, "unreadable": 0}
    blobs = run.read("content_blobs", ["content_hash"])
    rows = run.tables_of(_ROWS, raw=run.read("raw_assets"), blobs=blobs, cached=_probed(run))
    fetched = pc.sum(run.read("content_blobs", ["refcount"]).read_all()["refcount"]).as_py() or 0
    return run.publish(
        _recorded(run, rows, counts),
        summary=lambda: counts,
        checks=lambda: [complete("every_blob_probed", fetched, sum(counts.values()), "fetched samples have a probe")],
    )


def _probed(run: CellRun) -> pa.RecordBatchReader:
    """Probe what the cache lacks; the answers, in which a success of either kernel stands before a failure (`LATEST`)."""
    kernel = ProbeKernel(run.modality, run.blobs, run.limits)
    with run.sql(_REQUESTS, blobs=run.read("content_blobs")) as requests:
        run.compute(kernel, requests)
    if run.spec.on_partial == "reject":
        return run.cached(kernel)
    prefix = ProbeKernel(run.modality, run.blobs, run.limits, on_partial=run.spec.on_partial)
    with run.sql(_PARTIAL, blobs=run.read("content_blobs"), cached=run.cached(kernel)) as requests:
        run.compute(prefix, requests)
    both = (batch for each in (kernel, prefix) for batch in run.cached(each))
    return pa.RecordBatchReader.from_batches(run.cached(kernel).schema, both)


def _recorded(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    events: list[dict[str, Any]] = []
    run.fail(events)
    for table in rows:
        events += table.filter(pc.equal(table["probe"], "failed")).to_pylist()
        counts["unreadable"] += (failed := table["probe"].to_pylist().count("failed"))
        counts["probed"] += table.num_rows - failed
        yield table.drop(["attempt"])
