"""Columns that were added to a table's schema after some tables had been written: null in these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import lance


def read_columns(
    dataset: lance.LanceDataset | None, schema: pa.Schema, where: str | None = None
) -> pa.RecordBatchReader:
    """Stream the columns of `schema`, null where the dataset has none; an absent dataset reads as empty."""
    present = schema.names if dataset is None else [name for name in schema.names if name in _names(dataset)]
    return fill_columns(lance_datasets.reader(dataset, schema, present, where), schema)


def fill_columns(rows: pa.RecordBatchReader, schema: pa.Schema) -> pa.RecordBatchReader:
    """Stream rows with the columns of `schema`, null where they have none."""
    if rows.schema.names == schema.names:
        return rows
    own = set(rows.schema.names)
    filled_schema = pa.schema([rows.schema.field(item.name) if item.name in own else item for item in schema])

    def filled_batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            columns = [
                batch[item.name] if item.name in own else pa.nulls(batch.num_rows, item.type)
                for item in filled_schema
            ]
            yield pa.record_batch(columns, schema=filled_schema)

    return pa.RecordBatchReader.from_batches(filled_schema, filled_batches())


def _names(dataset: lance.LanceDataset) -> set[str]:
    return set(dataset.schema.names)
