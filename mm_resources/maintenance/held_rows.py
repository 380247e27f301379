"""Rows of forgotten samples in the files of tables whose versions share files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.lineages.fragments import distinct_fragments

_IDENTITY = ("sample_id", "content_hash")


def holds_rows(catalog: Catalog, receipt: Receipt, name: str) -> bool:
    """Return whether a file of any version of a table has a row of a receipt, deleted ones included."""
    wanted = {
        "content_hash": pa.array(receipt.hashes, pa.string()),
        "sample_id": pa.array(receipt.samples, pa.string()),
    }
    for dataset, fragments in distinct_fragments(catalog.store.uri(name)):
        columns = [column for column in _IDENTITY if column in dataset.schema.names]
        if not columns:
            continue
        scan = dataset.scanner(
            columns=columns, fragments=fragments, with_row_id=True, include_deleted_rows=True
        )
        for batch in scan.to_reader():
            for column in columns:
                if pc.any(pc.is_in(batch[column], wanted[column])).as_py():
                    return True
    return False
