from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.assets.raw_assets import REQUESTS
from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun
from mm_assets.checks import Check
from mm_embed_kernels import relational
from mm_resources.cache import ALL
from mm_resources.fetch import FetchKernel

# Two writers may have stored one blob; any of its locations will do, so take a stable one.
_ROWS = """
SELECT r.content_hash, r.refcount, i.path, coalesce(i.offset, 0) AS offset, coalesce(i.size, 0) AS size
FROM (SELECT content_hash, count(*) AS refcount FROM raw WHERE status = 'fetched' GROUP BY 1) r
LEFT JOIN (SELECT DISTINCT ON (content_hash) * FROM stored ORDER BY content_hash, path) i USING (content_hash)
ORDER BY r.content_hash
"""
_ENDS = 'SELECT path, max("offset" + size) AS size FROM blobs GROUP BY path'
_REFERENCES = "SELECT sample_id, source_uri, content_hash FROM raw JOIN lost USING (content_hash)"
_DAMAGED = "SELECT DISTINCT content_hash FROM failures WHERE error_class IN ('blob_missing', 'blob_damaged') AND content_hash IS NOT NULL"

_MINE = "SELECT DISTINCT content_hash FROM raw SEMI JOIN reported USING (content_hash)"


def _stands(run: CellRun) -> bool:
    """Whether the objects and packs of the last run are all there, and nothing has found a blob damaged since."""
    if _damaged(run):
        return False
    ends = relational.fetch(_ENDS, blobs=run.read("content_blobs", ["path", "offset", "size"])).to_pydict()
    sizes = run.blobs.store.sizes(ends["path"])
    return all(sizes.get(path, -1) >= size for path, size in zip(ends["path"], ends["size"], strict=True))


def _damaged(run: CellRun) -> set[str]:
    """Blobs of the cell that its stages, or `mm doctor --verify`, could not read."""
    found = relational.fetch(_DAMAGED, failures=run.failures.read(run.cell, ["content_hash", "error_class"]))
    damaged = set(found["content_hash"].to_pylist())
    if reported := run.blobs.damaged():
        hashes = pa.table({"content_hash": sorted(reported)})
        mine = relational.fetch(_MINE, raw=run.read("raw_assets", ["content_hash"]), reported=hashes)
        damaged.update(mine["content_hash"].to_pylist())
    return damaged


@cell_asset(group="1_ingest", deps=["dataset_registry", "raw_assets"], kinds=["file"], checks=[("blobs_present", False)], holds=_stands)
def content_blobs(run: CellRun) -> dg.MaterializeResult[Any]:
    """The distinct blobs that the cell references: size, references, where they lie, and that they are there.

    One that is missing or was found damaged is fetched again from its source; what the source no longer gives fails.
    """
    counts = {"blobs": 0, "bytes": 0, "references": 0, "fetched again": 0, "missing": 0}
    if lost := {*_missing(run), *_damaged(run)}:
        _fetch_again(run, lost)
        counts["fetched again"] = len(lost)
    return run.publish(
        _present(run, _located(run), counts),
        summary=lambda: counts,
        checks=lambda: [
            Check(
                "blobs_present",
                not counts["missing"],
                f"{counts['missing']:,} referenced blobs are missing, and their sources no longer give them",
                dict(counts),
                blocking=False,
            )
        ],
    )


def _located(run: CellRun) -> Iterator[tuple[pa.Table, list[bool]]]:
    """Referenced blobs with their places, and whether each lies there."""
    sizes: dict[str, int] = {}
    raw = run.read("raw_assets", ["sample_id", "content_hash", "status"])
    for table in run.tables_of(_ROWS, raw=raw, stored=run.blobs.places()):
        paths = {path for path in table["path"].to_pylist() if path}
        sizes.update(run.blobs.store.sizes(paths - set(sizes)))
        ends = pc.add(table["offset"], table["size"]).to_pylist()
        yield table, [path is not None and sizes.get(path, -1) >= end for path, end in zip(table["path"].to_pylist(), ends, strict=True)]


def _missing(run: CellRun) -> set[str]:
    return {hash_ for table, there in _located(run) for hash_, ok in zip(table["content_hash"].to_pylist(), there, strict=True) if not ok}


def _fetch_again(run: CellRun, lost: set[str]) -> None:
    """Strike blobs off the index and off the fetch cache, then fetch the samples that had them."""
    kernel = FetchKernel(run.spec, run.blobs)
    # What another run has mended meanwhile is not lost.
    run.require_alive()
    run.blobs.forget(lost)
    run.cache_space(kernel).evict("content_hash", lost)
    wanted = f"SELECT * FROM ({REQUESTS}) WHERE sample_id IN (SELECT sample_id FROM raw JOIN lost USING (content_hash))"
    with run.sql(
        wanted,
        listing=run.read("dataset_registry"),
        flavours=kernel.flavours(),
        raw=run.read("raw_assets", ["sample_id", "content_hash"]),
        lost=pa.table({"content_hash": sorted(lost)}),
    ) as requests:
        run.compute(kernel, requests, again=ALL)
    run.blobs.mended(lost)


def _present(run: CellRun, located: Iterator[tuple[pa.Table, list[bool]]], counts: dict[str, int]) -> Iterator[pa.Table]:
    events = run.events()
    tried = run.failures.read(run.cell, ["sample_id", "attempt"], [run.asset]).read_all().to_pydict()
    attempts = dict(zip(tried["sample_id"], tried["attempt"], strict=True))
    for table, there in located:
        lost = table.filter(pc.invert(pa.array(there, pa.bool_()))).select(["content_hash"])
        if lost.num_rows:
            counts["missing"] += lost.num_rows
            raw = run.read("raw_assets", ["sample_id", "source_uri", "content_hash"])
            message = "the blob is not in the store, and its source no longer gives these bytes"
            for row in relational.fetch(_REFERENCES, raw=raw, lost=lost).to_pylist():
                attempt = attempts.get(row["sample_id"], 0) + 1
                events.append({**row, "error_class": "blob_missing", "message": message, "retryable": True, "attempt": attempt})
        good = table.filter(pa.array(there, pa.bool_()))
        counts["blobs"] += good.num_rows
        counts["bytes"] += pc.sum(good["size"]).as_py() or 0
        counts["references"] += pc.sum(good["refcount"]).as_py() or 0
        yield good.append_column("verified_at", pa.array([datetime.now(UTC)] * good.num_rows, pa.timestamp("us", tz="UTC")))
