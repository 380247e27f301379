"""The rows that a training set's manifest selects: scans of its tables, filtered and joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.removed_rows import removal_errors, stage_version
from mm_resources.retrieval.filters import filter_errors, row_errors
from mm_resources.retrieval.training_rows import RowReader, table_version

if TYPE_CHECKING:
    import lance


OF_EVERY_SET = ("entity_id", "feature_id", "sample_id", "vector")


class ManifestRows:
    """The rows of a manifest, see `TrainingSet`."""

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog = catalog
        self.tables = manifest["tables"]
        self._columns, self._where = manifest["columns"], manifest["where"]
        self._dataset_version = manifest["dataset_version"]
        self.is_joined = len(self.tables) > 1

    def columns(self, table: dict[str, Any]) -> list[str]:
        """Return the columns of a table beside those of every set, which a second time would be ambiguous."""
        given = self._columns
        chosen = given.get(table["modality"], []) if isinstance(given, dict) else given
        return [name for name in dict.fromkeys(chosen) if name not in OF_EVERY_SET]

    def where(self, table: dict[str, Any]) -> str | None:
        """Return the filter of a table's rows."""
        found = self._where.get(table["modality"]) if isinstance(self._where, dict) else self._where
        return found or None

    def measure(self) -> tuple[int, str]:
        """Compute row count and digest, without the vectors."""
        digest = RowDigest(tuple(name for name in self.names() if not name.endswith("vector")))
        for batch in self.stream(with_vectors=False):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def names(self) -> list[str]:
        """Return the columns of the set, in order."""
        names: list[str] = self.schema().names
        return names

    def schema(self) -> pa.Schema:
        """Return the columns of the set, in order, with the types that they have in the tables."""
        fields = []
        for number, table in enumerate(self.tables):
            columns = self.columns(table)
            stored = self._dataset(table, [*OF_EVERY_SET, *columns]).schema
            if len(self.tables) == 1:
                return pa.schema([stored.field(name) for name in [*OF_EVERY_SET, *columns]])
            # The tables are joined on the entity, so that it is read from the first one.
            fields += [stored.field("entity_id")] if number == 0 else []
            fields += [
                pa.field(f"{table['modality']}__{name}", stored.field(name).type)
                for name in [*OF_EVERY_SET[1:], *columns]
            ]
        return pa.schema(fields)

    def splits(self, filtered: bool = True) -> list[str]:
        """Return the splits of the rows of all tables, sorted; with `filtered`, of those of the set alone."""
        found: set[str] = set()
        for table in self.tables:
            found |= self.values(table, "split", filtered)
        return sorted(found)

    def values(self, table: dict[str, Any], column: str, filtered: bool = True) -> set[Any]:
        """Return the values that a column has in the rows of a table, without null."""
        with self._reader_errors():
            rows = self.scan(table, [column], filtered=filtered)
            found = sql.fetch(f'SELECT DISTINCT "{column}" AS value FROM rows', rows=rows)["value"]
        return set(found.to_pylist()) - {None}

    def integers_with_nulls(self) -> frozenset[str]:
        """Return the integer columns of the set, as it names them, that are null in a row of its tables.

        Scans the integer columns, and no others.
        """
        found: set[str] = set()
        for table in self.tables:
            columns = self.columns(table)
            stored = self._dataset(table, columns).schema
            integers = [name for name in columns if pa.types.is_integer(stored.field(name).type)]
            if not integers:
                continue
            prefix = f"{table['modality']}__" if len(self.tables) > 1 else ""
            with self._reader_errors():
                for batch in self.scan(table, integers):
                    found |= {f"{prefix}{name}" for name in integers if batch[name].null_count}
        return frozenset(found)

    @property
    def _where_text(self) -> str | None:
        """The filters of all tables, as an error names them."""
        filters = dict.fromkeys(where for table in self.tables if (where := self.where(table)))
        return "; ".join(filters) or None

    @contextmanager
    def _reader_errors(self) -> Iterator[None]:
        """Raise the errors of the filter, and of rows that were forgotten meanwhile, in one line."""
        versions = [table_version(table) for table in self.tables]
        with removal_errors(self.catalog.receipts, versions), row_errors(self._where_text):
            yield

    def _dataset(self, table: dict[str, Any], columns: Iterable[str]) -> lance.LanceDataset:
        """Open a table at its version.

        Raises:
            UserError: when it lacks one of the columns; names those that it has.
        """
        dataset = self.catalog.features.dataset(table["table"], table["lance_version"])
        missing = [name for name in columns if name not in dataset.schema.names]
        if missing:
            raise UserError(
                f"{table['table']} has no column {missing[0]!r}; it has: {', '.join(dataset.schema.names)}"
            )
        return dataset

    def scan(
        self, table: dict[str, Any], columns: list[str], row_ids: bool = False, filtered: bool = True
    ) -> pa.RecordBatchReader:
        """Stream columns of the rows of a table that pass the filter; of all rows without `filtered`."""
        dataset, where = self._dataset(table, columns), self.where(table) if filtered else None
        with filter_errors(where, lambda: dataset.schema.names):
            rows: pa.RecordBatchReader = dataset.scanner(
                columns=columns, filter=where, with_row_id=row_ids
            ).to_reader()
        return rows

    def stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        """Stream all rows, with or without their vectors."""
        own = [name for name in OF_EVERY_SET if with_vectors or name != "vector"]
        columns = [own + self.columns(table) for table in self.tables]
        if len(self.tables) == 1:
            with self._reader_errors():
                yield from self.scan(self.tables[0], columns[0])
            return
        streams = {f"t{i}": self.scan(table, columns[i]) for i, table in enumerate(self.tables)}
        selected = [
            f't{i}."{name}" AS "{table["modality"]}__{name}"'
            for i, table in enumerate(self.tables)
            for name in columns[i]
            if name != "entity_id"
        ]
        with (
            self._reader_errors(),
            sql.query(
                f"SELECT entity_id, {', '.join(selected)} FROM {_join_clause(self.tables)}", **streams
            ) as reader,
        ):
            yield from reader

    def reader(self, media: bool = False) -> RowReader:
        """Return a reader of rows by number; rows are numbered by their row ids, first table first."""
        blob_tables = [self._blob_table(table) for table in self.tables] if media else []
        columns = [self.columns(table) for table in self.tables]
        return RowReader(self.catalog, self.tables, columns, self._row_ids(), blob_tables)

    def media_kinds(self) -> dict[str, str]:
        """Return the columns of media that a reader gives, with the modality of each."""
        if len(self.tables) == 1:
            return {"media": self.tables[0]["modality"]}
        return {f"{table['modality']}__media": table["modality"] for table in self.tables}

    def _row_ids(self) -> list[np.ndarray[Any, Any]]:
        """Return, for each table, the Lance row id of each row of the set, uint64 [rows]."""
        if len(self.tables) == 1:
            with self._reader_errors():
                rows = self.scan(self.tables[0], [], row_ids=True)
                batches = [batch["_rowid"].to_numpy() for batch in rows]
            return [np.sort(np.concatenate(batches)) if batches else np.empty(0, np.uint64)]
        streams = {
            f"t{i}": self.scan(table, ["entity_id"], row_ids=True) for i, table in enumerate(self.tables)
        }
        selected = ", ".join(f"t{i}._rowid AS row{i}" for i in range(len(self.tables)))
        with (
            self._reader_errors(),
            sql.query(
                f"SELECT {selected} FROM {_join_clause(self.tables)} ORDER BY ALL", **streams
            ) as joined,
        ):
            parts = [np.stack([column.to_numpy() for column in batch.columns]) for batch in joined]
        return list(np.concatenate(parts, axis=1) if parts else np.empty((len(self.tables), 0), np.uint64))

    def _blob_table(self, table: dict[str, Any]) -> tuple[str, int]:
        """Return name in the store and Lance version of the ``content_blobs`` behind a table's pin."""
        dataset, version = self._dataset_version.split("@")
        cell = Cell(dataset, version, table["modality"])
        pin = self.catalog.registry.pins.get(cell, table["pin"])
        assert pin is not None
        return stage_version(pin, "content_blobs")


def _join_clause(tables: list[dict[str, Any]]) -> str:
    """Return the SQL join of tables ``t0``, ``t1`` ... on the entity."""
    return " ".join(["t0", *(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))])
