"""Equal samples that others link: photos with the same bytes, in all cells whose samples follow them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels import sql
from mm_embed_kernels.curation.splits import EQUAL_GROUPS
from mm_resources.cell import Cell
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, REQUESTS, FetchKernel
from mm_resources.storage.spool import TableSpool

_CONTENT = pa.schema([("split_group", pa.string()), ("content_hash", pa.string())])
# A sample that links another is placed by that one, and a declared group by its name.
_OWN = 'entity_id = sample_id AND "group" IS NULL'
_OWN_CONTENTS = f"SELECT entity_id AS split_group, content_hash FROM samples WHERE {_OWN}"
# Samples of different sizes are not equal, and need not be fetched for it.
_POSSIBLE = f"""
SELECT * EXCLUDE (times) FROM (
  SELECT *, count(*) OVER (PARTITION BY size) AS times FROM listing WHERE {_OWN} AND error_class IS NULL
) WHERE size IS NULL OR times > 1
"""
_FETCHED = f"""
SELECT l.entity_id AS split_group, c.content_hash
FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM possible JOIN flavours USING (source)) l
JOIN cached c ON l.fetch_key = c.key
WHERE c.content_hash IS NOT NULL
"""
_EQUAL = """
SELECT split_group, 'content-' || left(sha256(content_hash), 32) AS unit FROM (
  SELECT split_group, content_hash, count(*) OVER (PARTITION BY content_hash) AS times
  FROM (SELECT DISTINCT split_group, content_hash FROM contents)
) WHERE times > 1 ORDER BY 1
"""


def equal_groups(run: CellRun) -> TableSpool:
    """Return the split groups of a version's samples that have equals, with the name by which all are placed.

    Each cell of the version finds the same: those of other modalities are fetched where they were not yet, if
    another one has the same size.
    """
    contents = TableSpool(_CONTENT)
    own = run.read("validated_samples", ["sample_id", "entity_id", "group", "content_hash"])
    for table in run.query_tables(_OWN_CONTENTS, samples=own):
        contents.add(table.cast(_CONTENT))
    for cell in run.catalog.registry.cells(run.cell.dataset_version):
        if cell.modality != run.cell.modality:
            for table in _contents(run, cell):
                contents.add(table.cast(_CONTENT))
    equal = TableSpool(EQUAL_GROUPS)
    for table in run.query_tables(_EQUAL, contents=contents.reader()):
        equal.add(table.cast(EQUAL_GROUPS))
    return equal


def _contents(run: CellRun, cell: Cell) -> Iterator[pa.Table]:
    """Yield the contents of another modality's samples, as far as they may have equals."""
    kernel = FetchKernel(run.spec, run.catalog.blobs)
    flavours = kernel.flavours()
    listing = run.catalog.registry.listings.listing(run.spec, cell.modality)
    with sql.query(_POSSIBLE, listing=listing) as rows:
        possible = TableSpool.of(rows)
    with run.query(REQUESTS, listing=possible.reader(), flavours=flavours) as requests:
        run.compute(kernel, requests)
    return run.query_tables(
        _FETCHED, possible=possible.reader(), cached=run.cached_results(kernel), flavours=flavours
    )
