"""Splits across versions: samples and groups keep the split that the parent version gave them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels.curation.splits import PARENT_SAMPLES, PARENT_SPLITS
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.cell import Cell
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, REQUESTS, FetchKernel
from mm_resources.ingestion.listings import declares_links
from mm_resources.storage.spool import TableSpool

_MEMBER = pa.schema([("split_group", pa.string()), ("sample_id", pa.string()), ("content_hash", pa.string())])
_PARENT = pa.schema([("sample_id", pa.string()), ("content_hash", pa.string()), ("split", pa.string())])

# A sample of the parent keeps its split, and its group follows; so does a renamed sample, recognized by its
# content, unless the parent has that content in several splits.
_PLACED = """
WITH placed AS MATERIALIZED (SELECT * FROM parent),
contents AS (
  SELECT content_hash, min(split) AS split FROM placed GROUP BY 1 HAVING count(DISTINCT split) = 1
),
matches AS (
  SELECT m.split_group, coalesce(p.split, c.split) AS split, p.split IS NULL AS renamed
  FROM members m LEFT JOIN (SELECT sample_id, split FROM placed) p USING (sample_id)
  LEFT JOIN contents c ON m.content_hash = c.content_hash
)
SELECT split_group, arg_min(split, (renamed, split)) AS split FROM matches WHERE split IS NOT NULL GROUP BY 1
"""
_KNOWN = """
WITH placed AS MATERIALIZED (SELECT * FROM parent)
SELECT sample_id FROM samples
WHERE sample_id IN (SELECT sample_id FROM placed) OR content_hash IN (SELECT content_hash FROM placed)
"""
_MEMBERS = 'SELECT coalesce("group", entity_id) AS split_group, sample_id, content_hash FROM samples'
_LINKED = f"""
SELECT coalesce(l."group", l.entity_id) AS split_group, l.sample_id, c.content_hash
FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l
LEFT JOIN cached c ON l.fetch_key = c.key
"""


def has_links(spec: DatasetSpec) -> bool:
    """Return whether samples of one cell follow those of another: captions a photo, sound tracks a video."""
    return any(declares_links(source) or source.track_of for source in spec.sources)


def parent_cells(run: CellRun) -> list[Cell]:
    """Return the parent's curated cells whose splits a cell inherits: with links, those of all modalities."""
    spec = run.spec
    if spec.parent is None:
        return []
    cells = run.catalog.registry.cells(f"{spec.name}@{spec.parent}")
    linked = any(declares_links(source) for source in spec.sources)
    return [
        cell
        for cell in cells
        if (linked or cell.modality == run.cell.modality) and run.catalog.tables.meta("curated_samples", cell)
    ]


def parent_versions(run: CellRun) -> dict[str, str]:
    """Return the data versions of the parent's cells, by partition key."""
    metas = {
        cell.partition_key: run.catalog.tables.meta("curated_samples", cell) for cell in parent_cells(run)
    }
    return {key: meta.data_version for key, meta in metas.items() if meta}


def inherit_splits(run: CellRun) -> tuple[TableSpool, TableSpool]:
    """Match the version's samples with those of its parent.

    Returns:
        The split of each group with a sample of the parent (`PARENT_SPLITS`), and the ids of the cell's
        samples that the parent has, by id or content (`PARENT_SAMPLES`).
    """
    placed, known, cells = TableSpool(PARENT_SPLITS), TableSpool(PARENT_SAMPLES), parent_cells(run)
    if cells:
        for table in run.query_tables(_PLACED, members=_members(run), parent=_parent_splits(run, cells)):
            placed.add(
                table.filter(pc.is_in(table["split"], pa.array(list(run.spec.splits)))).cast(PARENT_SPLITS)
            )
        own = run.read("validated_samples", list(_PARENT.names[:2]))
        for table in run.query_tables(_KNOWN, samples=own, parent=_parent_splits(run, cells)):
            known.add(table.cast(PARENT_SAMPLES))
    return placed, known


def _parent_splits(run: CellRun, cells: list[Cell]) -> pa.RecordBatchReader:
    """Stream the splits of the parent's samples.

    Raises:
        DamagedFiles: when the parent's table is damaged.
    """
    tables = run.catalog.tables
    for cell in cells:
        tables.require_intact("curated_samples", cell, tables.dataset("curated_samples", cell))

    def stream() -> Iterator[pa.RecordBatch]:
        for cell in cells:
            yield from run.catalog.tables.read("curated_samples", cell, _PARENT.names)

    return pa.RecordBatchReader.from_batches(_PARENT, stream())


def _members(run: CellRun) -> pa.RecordBatchReader:
    """Stream the samples of the version that may share split groups with this cell, with their contents."""

    def stream() -> Iterator[pa.RecordBatch]:
        own = run.read("validated_samples", ["sample_id", "entity_id", "group", "content_hash"])
        yield from _batches(run.query_tables(_MEMBERS, samples=own))
        if any(declares_links(source) for source in run.spec.sources):
            for cell in run.catalog.registry.cells(run.cell.dataset_version):
                if cell.modality != run.cell.modality:
                    yield from _batches(_linked_samples(run, cell))

    return pa.RecordBatchReader.from_batches(_MEMBER, stream())


def _batches(tables: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    for table in tables:
        yield from table.select(_MEMBER.names).cast(_MEMBER).to_batches()


def _linked_samples(run: CellRun, cell: Cell) -> Iterator[pa.Table]:
    """Yield the samples of a linked modality.

    They are fetched where they were not yet; the cell of that modality reuses the result.
    """
    kernel, listings = FetchKernel(run.spec, run.catalog.blobs), run.catalog.registry.listings
    given: dict[str, Any] = {"flavours": kernel.flavours()}
    with run.query(REQUESTS, listing=listings.listing(run.spec, cell.modality), **given) as requests:
        run.compute(kernel, requests)
    return run.query_tables(
        _LINKED, listing=listings.listing(run.spec, cell.modality), cached=run.cached_results(kernel), **given
    )
