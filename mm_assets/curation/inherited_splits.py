"""Splits across versions: what the parent version has placed stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels.curation.splits import KNOWN, PLACED
from mm_resources.cell import Cell
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, REQUESTS, FetchKernel
from mm_resources.ingestion.listings import declares_links
from mm_resources.storage.spool import TableSpool

_MEMBER = pa.schema([("split_group", pa.string()), ("sample_id", pa.string()), ("content_hash", pa.string())])
_PARENT = pa.schema([("sample_id", pa.string()), ("content_hash", pa.string()), ("split", pa.string())])

# A sample that the parent has keeps its split, and takes its group along; so does a renamed one, found by its content,
# unless the parent holds that content in several splits.
_PLACED = """
WITH placed AS MATERIALIZED (SELECT * FROM parent),
contents AS (SELECT content_hash, min(split) AS split FROM placed GROUP BY 1 HAVING count(DISTINCT split) = 1),
found AS (
  SELECT m.split_group, coalesce(p.split, c.split) AS split, p.split IS NULL AS renamed
  FROM members m LEFT JOIN (SELECT sample_id, split FROM placed) p USING (sample_id) LEFT JOIN contents c ON m.content_hash = c.content_hash
)
SELECT split_group, arg_min(split, (renamed, split)) AS split FROM found WHERE split IS NOT NULL GROUP BY 1
"""
_KNOWN = """
WITH placed AS MATERIALIZED (SELECT * FROM parent)
SELECT sample_id FROM samples WHERE sample_id IN (SELECT sample_id FROM placed) OR content_hash IN (SELECT content_hash FROM placed)
"""
_MEMBERS = 'SELECT coalesce("group", entity_id) AS split_group, sample_id, content_hash FROM samples'
_ELSEWHERE = f"""
SELECT coalesce(l."group", l.entity_id) AS split_group, l.sample_id, c.content_hash
FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l LEFT JOIN cached c ON l.fetch_key = c.key
"""


def parent_cells(run: CellRun) -> list[Cell]:
    """The parent version's cells whose placement this cell follows: its own, and those that links join to it."""
    spec = run.spec
    if spec.parent is None:
        return []
    cells = run.registry.cells(f"{spec.name}@{spec.parent}")
    linked = any(declares_links(source) for source in spec.sources)
    return [
        cell
        for cell in cells
        if (linked or cell.modality == run.cell.modality) and run.tables.meta("curated_samples", cell)
    ]


def parent_versions(run: CellRun) -> dict[str, str]:
    """Data versions of what the placement follows."""
    metas = {cell.partition_key: run.tables.meta("curated_samples", cell) for cell in parent_cells(run)}
    return {key: meta.data_version for key, meta in metas.items() if meta}


def inherited(run: CellRun) -> tuple[TableSpool, TableSpool]:
    """What the parent has placed: the split of each group (`PLACED`), and the cell's samples whose content it has (`KNOWN`)."""
    placed, known, cells = TableSpool(PLACED), TableSpool(KNOWN), parent_cells(run)
    if cells:
        for table in run.tables_of(_PLACED, members=_members(run), parent=_parent(run, cells)):
            placed.add(table.filter(pc.is_in(table["split"], pa.array(list(run.spec.splits)))).cast(PLACED))
        own = run.read("validated_samples", list(_PARENT.names[:2]))
        for table in run.tables_of(_KNOWN, samples=own, parent=_parent(run, cells)):
            known.add(table.cast(KNOWN))
    return placed, known


def _parent(run: CellRun, cells: list[Cell]) -> pa.RecordBatchReader:
    def stream() -> Iterator[pa.RecordBatch]:
        for cell in cells:
            yield from run.tables.read("curated_samples", cell, _PARENT.names)

    return pa.RecordBatchReader.from_batches(_PARENT, stream())


def _members(run: CellRun) -> pa.RecordBatchReader:
    """Every sample of the version that shares split groups with this cell, with its content."""

    def stream() -> Iterator[pa.RecordBatch]:
        own = run.read("validated_samples", ["sample_id", "entity_id", "group", "content_hash"])
        yield from _batches(run.tables_of(_MEMBERS, samples=own))
        if any(declares_links(source) for source in run.spec.sources):
            for cell in run.registry.cells(run.cell.dataset_version):
                if cell.modality != run.cell.modality:
                    yield from _batches(_elsewhere(run, cell))

    return pa.RecordBatchReader.from_batches(_MEMBER, stream())


def _batches(tables: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    for table in tables:
        yield from table.select(_MEMBER.names).cast(_MEMBER).to_batches()


def _elsewhere(run: CellRun, cell: Cell) -> Iterator[pa.Table]:
    """The samples of another modality, which may not have been fetched yet: reading them here is paid for once."""
    kernel, listings = FetchKernel(run.spec, run.blobs), run.registry.listings
    given: dict[str, Any] = {"flavours": kernel.flavours()}
    with run.sql(REQUESTS, listing=listings.listing(run.spec, cell.modality), **given) as requests:
        run.compute(kernel, requests)
    return run.tables_of(
        _ELSEWHERE, listing=listings.listing(run.spec, cell.modality), cached=run.cached(kernel), **given
    )
