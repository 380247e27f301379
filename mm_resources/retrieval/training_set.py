"""Training sets: pinned, filtered, joined features."""

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
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader, Rows
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import polars as pl
    import ray.data

    from mm_resources.retrieval.loader import Loader


class TrainingSet:
    """Rows of one or several pinned tables. `manifest` is JSON and brings the same rows back.

    With one modality a row has ``feature_id``, ``sample_id``, ``entity_id``, ``vector`` and the chosen columns. With
    several, the modalities are joined on ``entity_id`` and each column but that is prefixed, e.g. ``image__vector``.
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
        found = TrainingSet(catalog, manifest)
        manifest["rows"], manifest["digest"] = found._measure()
        return found

    @staticmethod
    def from_manifest(catalog: Catalog, manifest: dict[str, Any]) -> TrainingSet:
        """Raises UserError when the store no longer gives the rows of the manifest."""
        found = TrainingSet(catalog, manifest)
        if found._measure() != (manifest["rows"], manifest["digest"]):
            raise UserError("the store no longer holds the rows of this manifest")
        return found

    def _measure(self) -> tuple[int, str]:
        digest = RowDigest(tuple(name for name in self._names() if not name.endswith("vector")))
        for batch in self._stream(with_vectors=False):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def _names(self) -> list[str]:
        own = list(dict.fromkeys(["feature_id", "sample_id", "vector", *self.manifest["columns"]]))
        if len(self.manifest["tables"]) == 1:
            return ["entity_id", *own]
        return [
            "entity_id",
            *(f"{table['modality']}__{name}" for table in self.manifest["tables"] for name in own),
        ]

    def _scan(self, table: dict[str, Any], columns: list[str], row_ids: bool = False) -> pa.RecordBatchReader:
        dataset = self.catalog.features.dataset(table["table"], table["lance_version"])
        lacking = [name for name in columns if name not in dataset.schema.names]
        if lacking:
            raise UserError(
                f"{table['table']} has no column {lacking[0]!r}; it has: {', '.join(dataset.schema.names)}"
            )
        try:
            found: pa.RecordBatchReader = dataset.scanner(
                columns=columns, filter=self.manifest["where"], with_row_id=row_ids
            ).to_reader()
        except (ValueError, OSError) as error:
            raise UserError(
                f"the filter {self.manifest['where']!r} does not work: {' '.join(str(error).split())[:300]}"
            ) from error
        return found

    def _stream(self, with_vectors: bool) -> Iterator[pa.RecordBatch]:
        base = ["feature_id", "sample_id", *(["vector"] if with_vectors else []), *self.manifest["columns"]]
        columns = list(dict.fromkeys(["entity_id", *base]))
        tables = self.manifest["tables"]
        if len(tables) == 1:
            yield from self._scan(tables[0], columns)
            return
        streams = {f"t{i}": self._scan(table, columns) for i, table in enumerate(tables)}
        chosen = [
            f't{i}."{name}" AS "{table["modality"]}__{name}"'
            for i, table in enumerate(tables)
            for name in columns
            if name != "entity_id"
        ]
        joins = " ".join(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))
        with sql.query(f"SELECT entity_id, {', '.join(chosen)} FROM t0 {joins}", **streams) as reader:
            yield from reader

    def stream(self) -> Iterator[pa.RecordBatch]:
        """All rows, batch by batch."""
        for batch in self._stream(with_vectors=True):
            yield batch.select(self._names())

    def splits(self) -> list[str]:
        """The splits that the set has rows of, sorted."""
        rows = self._scan(self.manifest["tables"][0], ["split"])
        found: list[str] = sql.fetch("SELECT DISTINCT split FROM rows ORDER BY 1", rows=rows)[
            "split"
        ].to_pylist()
        return found

    def of_split(self, split: str) -> TrainingSet:
        """The part of the set that stands in a split."""
        chosen = " AND ".join(filter(None, [self.manifest["where"], f"split = {sql.literal(split)}"]))
        return TrainingSet(self.catalog, {**self.manifest, "where": chosen})

    @property
    def published_at(self) -> str:
        """When the youngest of its tables was published, ISO 8601."""
        dataset, version = self.manifest["dataset_version"].split("@")
        pins = [
            self.catalog.registry.pin(Cell(dataset, version, table["modality"]), table["pin"])
            for table in self.manifest["tables"]
        ]
        return max(pin.published_at for pin in pins if pin)

    def to_arrow(self) -> pa.Table:
        """All rows at once."""
        batches = list(self.stream())
        if not batches:
            return pa.table({name: [] for name in self._names()})
        return pa.Table.from_batches(batches)

    def to_polars(self) -> pl.DataFrame:
        """All rows at once, as a Polars frame."""
        import polars

        found = polars.from_arrow(self.to_arrow())
        assert isinstance(found, polars.DataFrame)
        return found

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
        """A loader that streams batches, see `mm_resources.retrieval.loader.Loader`.

        Args:
            media: whether each batch has a column ``media`` too (of several modalities, ``image__media`` ...): the bytes of
                each row's sample, verified against its hash and opened nowhere; the column ``span`` says which part the row is.
            workers: threads that read ahead; 0 reads when a batch is asked for.
            rank, world_size: this process among those that train together; by default what torch.distributed says.
        """
        from torch import distributed

        from mm_resources.retrieval.loader import Loader

        together = distributed.is_available() and distributed.is_initialized()
        rank = rank if rank is not None else distributed.get_rank() if together else 0
        world_size = world_size or (distributed.get_world_size() if together else 1)
        rows = self._rows(media)
        blobs = self.catalog.blobs if media else None
        return Loader(rows, len(rows.places[0]), batch_size, shuffle, seed, workers, rank, world_size, blobs)

    def to_ray(self, media: bool = False, blocks: int = 0) -> ray.data.Dataset:
        """A Ray dataset that reads the rows on its workers: vectors as float32 [n, dimension], all else as NumPy columns.

        Its workers open the store by its root, so on a cluster that has to be a URL or a folder that all of them mount. Connect
        Ray before (``ray.init``): left to itself, it takes all of the machine.

        Args:
            media: as in `to_torch`; bytes are read where the rows are.
            blocks: parts that are read apart; by default one for some sixteen thousand rows.
        """
        import ray.data

        rows = self._rows(media)
        count = len(rows.places[0])
        numbers = ray.data.range(
            count, override_num_blocks=blocks or -(-count // lance_datasets.READ_ROWS) or 1
        )
        # The whole block at once, where it has no media: a block is a piece of the set that lies together.
        return numbers.map_batches(
            BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
        )

    def _rows(self, media: bool = False) -> Rows:
        """Where each row of the set lies, in an order of its own: that of the first table, then of the others."""
        tables, columns = self.manifest["tables"], self.manifest["columns"]
        located = [self._blobs_of(table) for table in tables] if media else []
        if len(tables) == 1:
            return Rows(self.catalog, tables, columns, [np.sort(self._row_ids(tables[0]))], located)
        streams = {f"t{i}": self._scan(table, ["entity_id"], row_ids=True) for i, table in enumerate(tables)}
        chosen = ", ".join(f"t{i}._rowid AS place{i}" for i in range(len(tables)))
        joins = " ".join(f"JOIN t{i} USING (entity_id)" for i in range(1, len(tables)))
        with sql.query(f"SELECT {chosen} FROM t0 {joins} ORDER BY ALL", **streams) as found:
            places = [np.stack([column.to_numpy() for column in batch.columns]) for batch in found]
        whole = np.concatenate(places, axis=1) if places else np.empty((len(tables), 0), np.uint64)
        return Rows(self.catalog, tables, columns, list(whole), located)

    def _blobs_of(self, table: dict[str, Any]) -> tuple[str, int]:
        """Where the places of a table's blobs are written: URI and Lance version of the stage behind its pin.

        Raises:
            UserError: when the pin is gone.
        """
        dataset, version = self.manifest["dataset_version"].split("@")
        cell = Cell(dataset, version, table["modality"])
        pin = self.catalog.registry.pin(cell, table["pin"])
        assert pin is not None
        return self.catalog.tables.uri("content_blobs", cell), int(
            pin.stages["content_blobs"]["lance_version"]
        )

    def _row_ids(self, table: dict[str, Any]) -> np.ndarray[Any, Any]:
        found = [batch["_rowid"].to_numpy() for batch in self._scan(table, [], row_ids=True)]
        return np.concatenate(found) if found else np.empty(0, np.uint64)
