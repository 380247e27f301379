"""Training sets: pinned, filtered and joined features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.manifest_rows import ManifestRows
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader
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
        self._rows = ManifestRows(catalog, manifest)

    @staticmethod
    def from_pins(
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
        tables = [_manifest_table(pin, pin.table(embedder if len(pins) == 1 else None)) for pin in pins]
        manifest: dict[str, Any] = {
            "dataset_version": pins[0].dataset_version,
            "tables": tables,
            "where": " AND ".join(conditions) or None,
            "columns": columns,
        }
        chosen = TrainingSet(catalog, manifest)
        manifest["rows"], manifest["digest"] = chosen._rows.measure()
        return chosen

    @staticmethod
    def from_manifest(catalog: Catalog, manifest: dict[str, Any]) -> TrainingSet:
        """Return the training set of a manifest.

        Raises:
            UserError: when the rows in the store are not those of the manifest.
        """
        chosen = TrainingSet(catalog, manifest)
        if chosen._rows.measure() != (manifest["rows"], manifest["digest"]):
            raise UserError(
                "the store no longer has the rows of this manifest; "
                "make the training set again from its dataset version"
            )
        return chosen

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Stream all rows."""
        for batch in self._rows.stream(with_vectors=True):
            yield batch.select(self._rows.names())

    def splits(self) -> list[str]:
        """Return the splits of the set's rows, sorted."""
        rows = self._rows.scan(self.manifest["tables"][0], ["split"])
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
            return pa.table({name: [] for name in self._rows.names()})
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
            shuffle: whether to shuffle the rows again each epoch.
            seed: seed of the order.
            workers: threads that read ahead; 0 reads when a batch is requested.
            rank, world_size: this process among those that train together; by default those of
                torch.distributed.
            media: whether each batch has a column ``media`` (of several modalities, ``image__media`` ...):
                the bytes of each row's sample, verified against their hash and not decoded; the column
                ``span`` names the part of it that the row is.
        """
        from torch import distributed

        # Imports torch at its top.
        from mm_resources.retrieval.loader import Loader

        together = distributed.is_available() and distributed.is_initialized()
        rank = rank if rank is not None else distributed.get_rank() if together else 0
        world_size = world_size or (distributed.get_world_size() if together else 1)
        rows = self._rows.reader(media)
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

        rows = self._rows.reader(media)
        numbers = ray.data.range(
            len(rows), override_num_blocks=blocks or -(-len(rows) // lance_datasets.READ_ROWS) or 1
        )
        # Without media a whole block is read at once: its rows are neighbours in the set.
        return numbers.map_batches(
            BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
        )


def _manifest_table(pin: Pin, table: PinnedTable) -> dict[str, Any]:
    return {
        "modality": pin.modality,
        "pin": pin.number,
        "table": table.table,
        "lance_version": table.lance_version,
        "tag": table.tag,
        "fingerprint": table.fingerprint,
        "dimension": table.dimension,
    }
