"""Rows of a Lance dataset by their row ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import lance


def take_rows(dataset: lance.LanceDataset, row_ids: list[int], columns: list[str]) -> pa.Table:
    """Read columns of the rows with the given row ids, in their order."""
    # Private, but Lance has no public method for row ids: `take` expects positions in the dataset, while
    # scans return row ids, which are addresses (fragment and offset).
    rows: pa.Table = dataset._take_rows(row_ids, columns=columns)
    return rows
