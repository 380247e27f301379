from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import CellRun, Check

# Two writers may have stored one blob; any of its locations will do, so take a stable one.
_ROWS = """
SELECT r.content_hash, r.refcount, i.path, coalesce(i.offset, 0) AS offset, coalesce(i.size, 0) AS size
FROM (SELECT content_hash, count(*) AS refcount FROM raw WHERE status = 'fetched' GROUP BY 1) r
LEFT JOIN (SELECT DISTINCT ON (content_hash) * FROM stored ORDER BY content_hash, path) i USING (content_hash)
ORDER BY r.content_hash
"""


@cell_asset(group="1_ingest", deps=["raw_assets"], kinds=["file"], checks=[("blobs_present", True)])
def content_blobs(run: CellRun) -> dg.MaterializeResult[Any]:
    """The distinct blobs that the cell references: size, references, where they lie, and that they are there."""
    counts = {"blobs": 0, "bytes": 0, "references": 0, "missing": 0}
    rows = run.tables_of(_ROWS, raw=run.read("raw_assets", ["sample_id", "content_hash", "status"]), stored=run.blobs.index())
    return run.publish(
        _present(run, rows, counts),
        summary=lambda: counts,
        checks=lambda: [Check("blobs_present", not counts["missing"], f"{counts['missing']:,} referenced blobs are missing", dict(counts))],
    )


def _present(run: CellRun, rows: Iterator[pa.Table], counts: dict[str, int]) -> Iterator[pa.Table]:
    sizes: dict[str, int] = {}
    for table in rows:
        paths = {path for path in table["path"].to_pylist() if path}
        sizes.update(run.blobs.sizes(paths - set(sizes)))
        ends = pc.add(table["offset"], table["size"]).to_pylist()
        there = [path is not None and sizes.get(path, -1) >= end for path, end in zip(table["path"].to_pylist(), ends, strict=True)]
        lost = [content for content, ok in zip(table["content_hash"].to_pylist(), there, strict=True) if not ok]
        counts["missing"] += len(lost)
        run.fail(
            {"content_hash": content, "error_class": "blob_missing", "message": f"blob {content} is not in the store"} for content in lost
        )
        good = table.filter(pa.array(there))
        counts["blobs"] += good.num_rows
        counts["bytes"] += pc.sum(good["size"]).as_py() or 0
        counts["references"] += pc.sum(good["refcount"]).as_py() or 0
        yield good.append_column("verified_at", pa.array([datetime.now(UTC)] * good.num_rows, pa.timestamp("us", tz="UTC")))
