"""Training sets: pinned, filtered and joined features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader, RowReader
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import polars as pl
    import ray.data

    from mm_resources.retrieval.loader import Loader


class TrainingSet:
    """Rows of one or several pinned tables.

    With one modality a row has ``feature_id``, ``sample_id``, ``entity_id``, ``vector`` and the chosen
    columns. Several modalities are joined on ``entity_id``, and all other columns are prefixed, as in
    ``image__vector``.

    Attributes:
        manifest: JSON that names the tables, versions, filter and columns, with row count and digest;
            `FeatureStore.training_set` returns the same rows for it.
    """

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog = catalog
        self.manifest = manifest

    @staticmethod
    def pinned(
        catalog: Catalog,
        pins: list[Pin],
        embedder: str | None,
        where: str | None,
        split: str | None,
        columns: list[str],
    ) -> TrainingSet:
        """Return the training set of the rows of pins that pass a filter, with its manifest.

        Args:
            pins: one for each modality.
            embedder: embedder whose table is read, for a single modality; by default the primary one.
            where: SQL over the feature columns.
            split: split whose rows are chosen.
            columns: columns beside ids and vector.

        Raises:
            UserError: for a column that a table lacks, or a wrong filter.
        """
        conditions = [f"({where})"] if where else []
        if split:
            conditions.append(f"split = {sql.literal(split)}")
        tables = []
        for pin in pins:
            table = pin.table(embedder if len(pins) == 1 else None)
            tables.append(
                {
                    "modality": pin.modality,
                    "pin": pin.number,
                    "table": table.table,
                    "lance_version": table.lance_version,
                    "tag": table.tag,
                    "fingerprint": table.fingerprint,
                    "dimension": table.dimension,
                }
            )
        manifest: dict[str, Any] = {
            "dataset_version": f"{pins[0].dataset}@{pins[0].version}",
            "tables": tables,
            "where": " AND ".join(conditions) or None,
            "columns": columns,
        }
        chosen = TrainingSet(catalog, manifest)
        manifest["rows"], manifest["digest"] = chosen._measure()
        return chosen

    @staticmethod
    def from_manifest(catalog: Catalog, manifest: dict[str, Any]) -> TrainingSet:
        """Return the training set of a manifest.

        Raises:
            UserError: when the rows in the store are not those of the manifest.
        """
        chosen = TrainingSet(catalog, manifest)
        if chosen._measure() != (manifest["rows"], manifest["digest"]):
            raise UserError(
                "the store no longer holds the rows of this manifest; "
                "make the training set anew from its dataset version"
            )
        return chosen

    def _measure(self) -> tuple[int, str]:
        """Compute row count and digest, without the vectors."""
        digest = RowDigest(tuple(name for name in self._names() if not name.endswith("vector")))
        for batch in self._stream(with_vectors=False):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def _names(self) -> list[str]:
        """Return the columns of the set, in order."""
        own = list(dict.fromkeys(["feature_id", "sample_id", "vector", *self.manifest["columns"]]))
        if len(self.manifest["tables"]) == 1:
            return ["entity_id", *own]
        return [
            "entity_id",
            *(f"{table['modality']}__{name}" for table in self.manifest["tables"] for name in own),
        ]

    def _scan(self, table: dict[str, Any], columns: list[str], row_ids: bool = False) -> pa.RecordBatchReader:
        """Stream columns of the rows of a table that pass the filter."""
        dataset = self.catalog.features.dataset(table["table"], table["lance_version"])
        missing = [name for name in columns if name not in dataset.schema.names]
        if missing:
            raise UserError(
                f"{table['table']} has no column {missing[0]!r}; it has: {', '.join(dataset.schema.names)}"
            )
        try:
            rows: pa.RecordBatchReader = dataset.scanner(
                columns=columns, filter=self.manifest["where"], with_row_id=row_ids
            ).to_reader()
        except (ValueError, OSError) as error:
            raise UserError(
                f"the filter {self.manifest['where']!r} does not work: {' '.join(str(error).split())[:300]}"
            ) from error
        return rows

    def _stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        base = ["feature_id", "sample_id", *(["vector"] if with_vectors else []), *self.manifest["columns"]]
        columns = list(dict.fromkeys(["entity_id", *base]))
        tables = self.manifest["tables"]
        if len(tables) == 1:
            yield from self._scan(tables[0], columns)
            return
        streams = {f"t{i}": self._scan(table, columns) for i, table in enumerate(tables)}
        selected = [
            f't{i}."{name}" AS "{table["modality"]}__{name}"'
            for i, table in enumerate(tables)
            for name in columns
            if name != "entity_id"
        ]
        with sql.query(
            f"SELECT entity_id, {', '.join(selected)} FROM {_joined(tables)}", **streams
        ) as reader:
            yield from reader

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Stream all rows."""
        for batch in self._stream(with_vectors=True):
            yield batch.select(self._names())

    def splits(self) -> list[str]:
        """Return the splits of the set's rows, sorted."""
        rows = self._scan(self.manifest["tables"][0], ["split"])
        distinct = sql.fetch("SELECT DISTINCT split FROM rows ORDER BY 1", rows=rows)
        splits: list[str] = distinct["split"].to_pylist()
        return splits

    def of_split(self, split: str) -> TrainingSet:
        """Return the rows of a split as a set of their own, without row count and digest of its own."""
        chosen = " AND ".join(filter(None, [self.manifest["where"], f"split = {sql.literal(split)}"]))
        return TrainingSet(self.catalog, {**self.manifest, "where": chosen})

    @property
    def published_at(self) -> str:
        """Time of publication of the latest of its tables, ISO 8601."""
        dataset, version = self.manifest["dataset_version"].split("@")
        pins = [
            self.catalog.registry.pins.get(Cell(dataset, version, table["modality"]), table["pin"])
            for table in self.manifest["tables"]
        ]
        return max(pin.published_at for pin in pins if pin)

    def to_arrow(self) -> pa.Table:
        """Read all rows into memory."""
        batches = list(self.stream())
        if not batches:
            return pa.table({name: [] for name in self._names()})
        return pa.Table.from_batches(batches)

    def to_polars(self) -> pl.DataFrame:
        """Read all rows into memory, as a Polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_torch(
        self,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        media: bool = False,
    ) -> Loader:
        """Return a loader that streams batches, see `mm_resources.retrieval.loader.Loader`.

        Args:
            batch_size: rows of a batch.
            shuffle: whether to shuffle the rows anew each epoch.
            seed: seed of the order.
            workers: threads that read ahead; 0 reads when a batch is requested.
            rank, world_size: this process among those that train together; by default those of
                torch.distributed.
            media: whether each batch has a column ``media`` (of several modalities, ``image__media`` ...):
                the bytes of each row's sample, verified against their hash and not decoded; the column
                ``span`` names the part of it that the row is.
        """
        # The loader imports torch, see `mm_resources.retrieval.loader`.
        from torch import distributed

        from mm_resources.retrieval.loader import Loader

        together = distributed.is_available() and distributed.is_initialized()
        rank = rank if rank is not None else distributed.get_rank() if together else 0
        world_size = world_size or (distributed.get_world_size() if together else 1)
        rows = self._rows(media)
        blobs = self.catalog.blobs if media else None
        return Loader(rows, len(rows), batch_size, shuffle, seed, workers, rank, world_size, blobs)

    def to_ray(self, media: bool = False, blocks: int = 0) -> ray.data.Dataset:
        """Return a Ray dataset that reads the rows on its workers.

        Vectors are float32 [n, dimension], all other columns NumPy columns. The workers open the store by its
        root: on a cluster that is a URL or a folder that all nodes mount. Connect Ray before (``ray.init``);
        otherwise Ray starts with all of the machine.

        Args:
            media: as for `to_torch`; the bytes are read on the workers.
            blocks: number of blocks that are read separately; by default one for some sixteen thousand rows.
        """
        import ray.data

        rows = self._rows(media)
        numbers = ray.data.range(
            len(rows), override_num_blocks=blocks or -(-len(rows) // lance_datasets.READ_ROWS) or 1
        )
        # Without media a whole block is read at once: its rows are neighbours in the set.
        return numbers.map_batches(
            BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
        )

    def _rows(self, media: bool = False) -> RowReader:
        """Return a reader of rows by number; rows are numbered by their row ids, first table first."""
        tables, columns = self.manifest["tables"], self.manifest["columns"]
        blob_tables = [self._blob_table(table) for table in tables] if media else []
        return RowReader(self.catalog, tables, columns, self._row_ids(), blob_tables)

    def _row_ids(self) -> list[np.ndarray[Any, Any]]:
        """Return, for each table, the Lance row id of each row of the set, uint64 [rows]."""
        tables = self.manifest["tables"]
        if len(tables) == 1:
            batches = [batch["_rowid"].to_numpy() for batch in self._scan(tables[0], [], row_ids=True)]
            return [np.sort(np.concatenate(batches)) if batches else np.empty(0, np.uint64)]
        streams = {f"t{i}": self._scan(table, ["entity_id"], row_ids=True) for i, table in enumerate(tables)}
        selected = ", ".join(f"t{i}._rowid AS row{i}" for i in range(len(tables)))
        with sql.query(f"SELECT {selected} FROM {_joined(tables)} ORDER BY ALL", **streams) as joined:
            parts = [np.stack([column.to_numpy() for column in batch.columns]) for batch in joined]
        return list(np.concatenate(parts, axis=1) if parts else np.empty((len(tables), 0), np.uint64))

    def _blob_table(self, table: dict[str, Any]) -> tuple[str, int]:
        """Return URI and Lance version of the ``content_blobs`` behind a table's pin."""
        dataset, version = self.manifest["dataset_version"].split("@")
        cell = Cell(dataset, version, table["modality"])
        pin = self.catalog.registry.pins.get(cell, table["pin"])
        assert pin is not None
        lance_version = int(pin.stages["content_blobs"]["lance_version"])
        return self.catalog.tables.uri("content_blobs", cell), lance_version


def _joined(tables: list[dict[str, Any]]) -> str:
    """Return the SQL join of tables ``t0``, ``t1`` ... on the entity."""
    return " ".join(["t0", *(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))])
