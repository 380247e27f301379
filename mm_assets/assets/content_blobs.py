"""Content-addressed blobs: the distinct contents that a cell references, checked for presence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.row_inputs import RowInputs
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import sql
from mm_embed_kernels.contracts.fields import current_times
from mm_embed_kernels.errors import SampleError
from mm_resources.blobs.references import reference_of
from mm_resources.compute.retry_policy import ALL
from mm_resources.ingestion.fetch_kernel import REQUESTS, FetchKernel

# Two writers may have stored one blob; of its locations the first in order is taken, so that it is stable. A
# blob that only referenced sources have is located in the first of them.
_ROWS = """
WITH named AS (
  SELECT content_hash, count(*) AS refcount, bool_and(f.source IS NOT NULL) AS stays,
         arg_min({'uri': source_uri, 'tag': l.tag, 'size': size}, source_uri) AS listed
  FROM raw r LEFT JOIN referenced f USING (source) LEFT JOIN listing l USING (sample_id)
  WHERE status = 'fetched' GROUP BY 1
)
SELECT r.content_hash, r.refcount,
       coalesce(i.path, CASE WHEN stays THEN 'source:' || listed.uri || '#' || listed.tag END) AS path,
       coalesce(i.offset, 0) AS offset, coalesce(i.size, CASE WHEN stays THEN listed.size END, 0) AS size
FROM named r
LEFT JOIN (SELECT DISTINCT ON (content_hash) * FROM stored ORDER BY content_hash, path) i USING (content_hash)
ORDER BY r.content_hash
"""
_TAGS = pa.schema([("sample_id", pa.string()), ("tag", pa.string())])
_ENDS = 'SELECT path, 0 AS "offset", max("offset" + size) AS size FROM blobs GROUP BY path'
_REFERENCES = (
    "SELECT sample_id, source_uri, content_hash, error_class, message FROM raw JOIN lost USING (content_hash)"
)
_DAMAGED = """
SELECT DISTINCT content_hash FROM failures
WHERE error_class IN ('blob_missing', 'blob_damaged') AND content_hash IS NOT NULL
"""
_CELL_HASHES = "SELECT DISTINCT content_hash FROM raw SEMI JOIN reported USING (content_hash)"


def _is_still_valid(run: CellRun) -> bool:
    """Check that all objects and packs of the last run exist and no blob was reported damaged."""
    return not _damaged_hashes(run) and _are_present(run, partial(run.read, "content_blobs"))


def _are_present(run: CellRun, read: sql.CellReader) -> bool:
    """Check that all objects and packs of located blobs exist."""
    ends = sql.fetch(_ENDS, blobs=read(["path", "offset", "size"]))
    return not any(run.catalog.blobs.presence_check().errors(ends))


def _damaged_hashes(run: CellRun) -> set[str]:
    """Return the hashes of the cell's blobs that its stages or `mm doctor --verify` could not read."""
    found = sql.fetch(_DAMAGED, failures=run.catalog.failures.read(run.cell, ["content_hash", "error_class"]))
    damaged = set(found["content_hash"].to_pylist())
    if reported := run.catalog.blobs.damage.hashes():
        hashes = pa.table({"content_hash": sorted(reported)})
        raw = run.read("raw_assets", ["content_hash"])
        damaged.update(sql.fetch(_CELL_HASHES, raw=raw, reported=hashes)["content_hash"].to_pylist())
    return damaged


def _rules(run: CellRun) -> dict[str, Any] | None:
    """Return None where blobs have to be located again: some are damaged, or not the store's own."""
    referenced = any(source.blobs == "reference" for source in run.spec.sources)
    return None if referenced or _damaged_hashes(run) else {}


@cell_asset(
    group="1_ingest",
    deps=["dataset_registry", "raw_assets"],
    kinds=["file"],
    checks=[("blobs_present", False)],
    is_still_valid=_is_still_valid,
    row_inputs=RowInputs(
        {"raw_assets": ("sample_id", "content_hash", "status", "source", "source_uri", "size")},
        _rules,
        owner="content_hash",
        holds=_are_present,
    ),
)
def content_blobs(run: CellRun) -> StageOutput:
    """The distinct blobs that the cell references: size, number of references and a verified location.

    A blob that is missing or damaged is fetched again from its source; it fails when the source no longer has
    it.
    """
    counts = {"blobs": 0, "bytes": 0, "references": 0, "fetched again": 0, "missing": 0}
    if lost := {*_missing_hashes(run), *_damaged_hashes(run)}:
        _fetch_again(run, lost)
        counts["fetched again"] = len(lost)
    written = run.write(_count_present(run, _blob_locations(run), counts))
    for batch in run.read_written(written, ["size", "refcount"]):
        counts["blobs"] += batch.num_rows
        counts["bytes"] += pc.sum(batch["size"]).as_py() or 0
        counts["references"] += pc.sum(batch["refcount"]).as_py() or 0
    return StageOutput(
        written,
        counts,
        [
            Check(
                "blobs_present",
                not counts["missing"],
                f"{counts['missing']:,} referenced blobs are missing, and their sources no longer give them"
                if counts["missing"]
                else "no referenced blob is missing",
                dict(counts),
                blocking=False,
            )
        ],
    )


def _blob_locations(run: CellRun) -> Iterator[tuple[pa.Table, list[SampleError | None]]]:
    """Yield referenced blobs with their locations, and for each the error if it is not there."""
    presence = run.catalog.blobs.presence_check()
    names = [source.name for source in run.spec.sources if source.blobs == "reference"]
    referenced = pa.table({"source": pa.array(names, pa.string())})
    stored = run.catalog.blobs.index.referable_rows()
    raw = run.read("raw_assets", ["sample_id", "content_hash", "status", "source", "source_uri", "size"])
    # A row of `raw_assets` that this version shares with another keeps the tag that the other listed.
    listing = run.read("dataset_registry", _TAGS.names) if names else _TAGS.empty_table()
    streams = {"raw": raw, "referenced": referenced, "stored": stored, "listing": listing}
    for table in run.query_tables(_ROWS, **streams):
        yield table, presence.errors(table)


def _missing_hashes(run: CellRun) -> set[str]:
    """Return the hashes of blobs that the store lacks, without those that referenced sources contain."""
    found = set()
    for table, errors in _blob_locations(run):
        for digest, path, error in zip(
            table["content_hash"].to_pylist(), table["path"].to_pylist(), errors, strict=True
        ):
            if error is not None and (path is None or reference_of(path) is None):
                found.add(digest)
    return found


def _fetch_again(run: CellRun, lost: set[str]) -> None:
    """Remove blobs from the index and the fetch cache, then fetch the samples with these contents again."""
    kernel = FetchKernel(run.spec, run.catalog.blobs)
    # Blobs that another run has fetched again meanwhile are not lost.
    run.require_alive()
    run.catalog.blobs.index.remove(lost)
    run.cache_space(kernel).evict("content_hash", lost)
    having_lost = "SELECT sample_id FROM raw JOIN lost USING (content_hash)"
    wanted = f"SELECT * FROM ({REQUESTS}) WHERE sample_id IN ({having_lost})"
    with run.query(
        wanted,
        # A listing that names no contents cannot be read by them.
        listing=run.read_all("dataset_registry", run.contract("dataset_registry").schema.names),
        flavours=kernel.flavours(),
        raw=run.read("raw_assets", ["sample_id", "content_hash"]),
        lost=pa.table({"content_hash": sorted(lost)}),
    ) as requests:
        run.compute(kernel, requests, ALL)
    run.catalog.blobs.damage.clear(lost)


def _count_present(
    run: CellRun, locations: Iterator[tuple[pa.Table, list[SampleError | None]]], counts: dict[str, int]
) -> Iterator[pa.Table]:
    """Yield the blobs that are present, count them, and record a failure for each sample without its blob."""
    events = run.new_failure_spill()
    tried = run.catalog.failures.read(run.cell, ["sample_id", "attempt"], [run.asset]).read_all().to_pydict()
    attempts = dict(zip(tried["sample_id"], tried["attempt"], strict=True))
    for table, errors in locations:
        bad = [
            (digest, error)
            for digest, error in zip(table["content_hash"].to_pylist(), errors, strict=True)
            if error
        ]
        if bad:
            counts["missing"] += len(bad)
            raw = run.read("raw_assets", ["sample_id", "source_uri", "content_hash"])
            lost = [
                {"content_hash": digest, "error_class": error.error_class, "message": error.message}
                for digest, error in bad
            ]
            for row in sql.fetch(_REFERENCES, raw=raw, lost=pa.Table.from_pylist(lost)).to_pylist():
                events.append({**row, "retryable": True, "attempt": attempts.get(row["sample_id"], 0) + 1})
        good = table.filter(pa.array([error is None for error in errors], pa.bool_()))
        yield good.append_column("verified_at", current_times(good.num_rows))
