"""Probes of damaged media: the readable beginning takes the place of the failure."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.kernels.probe import PARTIAL
from mm_resources.compute.cache import CacheSpace

# The rows of `requests` that the probe has refused (see `cached`), though their beginning may be readable.
REFUSED_REQUESTS = f"""
SELECT r.* FROM requests r JOIN cached p USING (key)
WHERE p.status = 'failed' AND p.error_class IN {PARTIAL}
"""


_EITHER = "SELECT w.* FROM whole w ANTI JOIN kept k USING (key) UNION ALL SELECT * FROM prefixes"


def merge_prefixes(whole: CacheSpace, prefix: CacheSpace) -> pa.RecordBatchReader:
    """Probes of whole media and, in place of failures, of the readable beginnings of damaged ones."""
    rows = whole.reader()

    def merged_batches() -> Iterator[pa.RecordBatch]:
        streams = {
            "whole": rows,
            "kept": prefix.reader(["key"], only_ok=True),
            "prefixes": prefix.reader(only_ok=True),
        }
        with sql.query(_EITHER, **streams) as found:
            for batch in found:
                yield from pa.Table.from_batches([batch]).cast(rows.schema).to_batches()

    return pa.RecordBatchReader.from_batches(rows.schema, merged_batches())
