"""Rows of a Lance dataset by their row ids, and the row ids of the rows that have certain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import lance

RowIds = np.ndarray[Any, np.dtype[np.uint64]]

_TAKE_ROWS = 4_096
_ROW_ID = pa.field("_rowid", pa.uint64())


def take_rows(dataset: lance.LanceDataset, row_ids: list[int], columns: list[str]) -> pa.Table:
    """Read columns of the rows with the given row ids, in their order."""
    # Private, but Lance has no public method for row ids: `take` expects positions in the dataset, while
    # scans return row ids, which are addresses (fragment and offset).
    rows: pa.Table = dataset._take_rows(row_ids, columns=columns)
    return rows


def find_rows(dataset: lance.LanceDataset, column: str, values: pa.Array) -> RowIds:
    """Return the row ids of the rows whose column has one of some values, sorted; by a scan of the column."""
    if not len(values):
        return np.empty(0, np.uint64)
    found = [
        batch["_rowid"].filter(pc.is_in(batch[column], value_set=values)).to_numpy(zero_copy_only=False)
        for batch in lance_datasets.reader(dataset, dataset.schema, [column], row_ids=True)
    ]
    return np.sort(np.concatenate(found)).astype(np.uint64) if found else np.empty(0, np.uint64)


def read_rows(
    dataset: lance.LanceDataset, row_ids: RowIds, columns: list[str], with_ids: bool = False
) -> pa.RecordBatchReader:
    """Stream columns of the rows with the given row ids, in their order.

    Args:
        with_ids: whether to add each row's id as ``_rowid``.
    """
    schema = pa.schema([dataset.schema.field(name) for name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(row_ids), _TAKE_ROWS):
            some = row_ids[start : start + _TAKE_ROWS]
            rows = take_rows(dataset, some.tolist(), columns).select(columns)
            if with_ids:
                rows = rows.append_column(_ROW_ID, pa.array(some))
            yield from rows.combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema.append(_ROW_ID) if with_ids else schema, batches())
