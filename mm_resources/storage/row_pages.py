"""Pages of a dataset's rows, in the order of the table or of a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import lance


def read_page(
    dataset: lance.LanceDataset,
    columns: Sequence[str],
    where: str | None,
    order_by: str | None,
    limit: int,
    offset: int,
) -> pa.Table:
    """Return rows of a version that pass a filter.

    Args:
        where: SQL over its columns.
        order_by: a column, with ``-`` in front for the largest first; null ones come last.
        limit: most rows.
        offset: rows before them.
    """
    from lance.dataset import ColumnOrdering

    order = None
    if order_by is not None:
        name = order_by.removeprefix("-")
        order = [ColumnOrdering(name, ascending=not order_by.startswith("-"), nulls_first=False)]
    return dataset.scanner(
        columns=list(columns), filter=where, limit=limit, offset=offset, order_by=order
    ).to_table()
