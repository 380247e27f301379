"""The rows that a training set's manifest selects: scans of its tables, filtered and joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.training_rows import RowReader


class ManifestRows:
    """The rows of a manifest, see `TrainingSet`."""

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog = catalog
        self.tables, self.columns = manifest["tables"], manifest["columns"]
        self._dataset_version, self._where = manifest["dataset_version"], manifest["where"]

    def measure(self) -> tuple[int, str]:
        """Compute row count and digest, without the vectors."""
        digest = RowDigest(tuple(name for name in self.names() if not name.endswith("vector")))
        for batch in self.stream(with_vectors=False):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def names(self) -> list[str]:
        """Return the columns of the set, in order."""
        own = list(dict.fromkeys(["feature_id", "sample_id", "vector", *self.columns]))
        if len(self.tables) == 1:
            return ["entity_id", *own]
        return [
            "entity_id",
            *(f"{table['modality']}__{name}" for table in self.tables for name in own),
        ]

    def scan(self, table: dict[str, Any], columns: list[str], row_ids: bool = False) -> pa.RecordBatchReader:
        """Stream columns of the rows of a table that pass the filter."""
        dataset = self.catalog.features.dataset(table["table"], table["lance_version"])
        missing = [name for name in columns if name not in dataset.schema.names]
        if missing:
            raise UserError(
                f"{table['table']} has no column {missing[0]!r}; it has: {', '.join(dataset.schema.names)}"
            )
        try:
            rows: pa.RecordBatchReader = dataset.scanner(
                columns=columns, filter=self._where, with_row_id=row_ids
            ).to_reader()
        except (ValueError, OSError) as error:
            raise UserError(
                f"the filter {self._where!r} is invalid: {' '.join(str(error).split())[:300]}"
            ) from error
        return rows

    def stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        """Stream all rows, with or without their vectors."""
        base = ["feature_id", "sample_id", *(["vector"] if with_vectors else []), *self.columns]
        columns = list(dict.fromkeys(["entity_id", *base]))
        if len(self.tables) == 1:
            yield from self.scan(self.tables[0], columns)
            return
        streams = {f"t{i}": self.scan(table, columns) for i, table in enumerate(self.tables)}
        selected = [
            f't{i}."{name}" AS "{table["modality"]}__{name}"'
            for i, table in enumerate(self.tables)
            for name in columns
            if name != "entity_id"
        ]
        with sql.query(
            f"SELECT entity_id, {', '.join(selected)} FROM {_join_clause(self.tables)}", **streams
        ) as reader:
            yield from reader

    def reader(self, media: bool = False) -> RowReader:
        """Return a reader of rows by number; rows are numbered by their row ids, first table first."""
        blob_tables = [self._blob_table(table) for table in self.tables] if media else []
        return RowReader(self.catalog, self.tables, self.columns, self._row_ids(), blob_tables)

    def _row_ids(self) -> list[np.ndarray[Any, Any]]:
        """Return, for each table, the Lance row id of each row of the set, uint64 [rows]."""
        if len(self.tables) == 1:
            batches = [batch["_rowid"].to_numpy() for batch in self.scan(self.tables[0], [], row_ids=True)]
            return [np.sort(np.concatenate(batches)) if batches else np.empty(0, np.uint64)]
        streams = {
            f"t{i}": self.scan(table, ["entity_id"], row_ids=True) for i, table in enumerate(self.tables)
        }
        selected = ", ".join(f"t{i}._rowid AS row{i}" for i in range(len(self.tables)))
        with sql.query(
            f"SELECT {selected} FROM {_join_clause(self.tables)} ORDER BY ALL", **streams
        ) as joined:
            parts = [np.stack([column.to_numpy() for column in batch.columns]) for batch in joined]
        return list(np.concatenate(parts, axis=1) if parts else np.empty((len(self.tables), 0), np.uint64))

    def _blob_table(self, table: dict[str, Any]) -> tuple[str, int]:
        """Return URI and Lance version of the ``content_blobs`` behind a table's pin."""
        dataset, version = self._dataset_version.split("@")
        cell = Cell(dataset, version, table["modality"])
        pin = self.catalog.registry.pins.get(cell, table["pin"])
        assert pin is not None
        lance_version = int(pin.stages["content_blobs"]["lance_version"])
        return self.catalog.tables.uri("content_blobs", cell), lance_version


def _join_clause(tables: list[dict[str, Any]]) -> str:
    """Return the SQL join of tables ``t0``, ``t1`` ... on the entity."""
    return " ".join(["t0", *(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))])
