"""Training sets: pinned, filtered and joined features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.removed_rows import removal_errors
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.arguments import require_flag, require_number, require_text
from mm_resources.retrieval.filters import join_conditions
from mm_resources.retrieval.loader import Loader, check_loader
from mm_resources.retrieval.manifest_rows import ManifestRows
from mm_resources.retrieval.pick_splits import pick_of, split_condition
from mm_resources.retrieval.training_rows import MEDIA_ROWS, BlockReader, table_version
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import polars as pl
    import ray.data


class TrainingSet:
    """Rows of one or several pinned tables.

    With one modality a row has ``feature_id``, ``sample_id``, ``entity_id``, ``vector`` and the chosen
    columns. Several modalities are joined on ``entity_id``, and all other columns are prefixed, as in
    ``image__vector``.

    Args:
        manifest: names the tables, versions, filter and columns; row count and digest may be absent.
    """

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog = catalog
        self._manifest = manifest
        self._rows = ManifestRows(catalog, manifest)

    @property
    def manifest(self) -> dict[str, Any]:
        """JSON that names the tables, versions, filter and columns, with row count and digest.

        `FeatureStore.training_set` returns the same rows for it. The rows are counted at the first use.
        """
        if "digest" not in self._manifest:
            rows, digest = self._rows.measure()
            self._manifest = {**self._manifest, "rows": rows, "digest": digest}
        return self._manifest

    @staticmethod
    def from_pins(
        catalog: Catalog,
        pins: list[Pin],
        embedder: str | Mapping[str, str] | None,
        where: str | None,
        split: str | None,
        columns: list[str],
        verify: bool = False,
    ) -> TrainingSet:
        """Return the training set of the rows of pins that pass a filter, with its manifest.

        Args:
            pins: one for each modality.
            embedder: embedder whose tables are read, or one for each modality; by default the primary one.
            where: SQL over the feature columns.
            split: split whose rows are chosen, or ``pick:NAME`` or ``unpicked:NAME``.
            columns: columns beside ids and vector.
            verify: whether to compare the tables' files with their hashes.

        Raises:
            UserError: for a column, an embedder or a split that a table lacks, or a wrong filter.
            DamagedFiles: with `verify`, when a table is damaged.
        """
        conditions = [split_condition(catalog, pins, split)] if split is not None else []
        manifest: dict[str, Any] = {
            "dataset_version": pins[0].dataset_version,
            "tables": [_manifest_table(pin, _table(pin, embedder, len(pins))) for pin in pins],
            "where": join_conditions(where, *conditions),
            "columns": columns,
        }
        chosen = TrainingSet(catalog, manifest)
        if verify:
            chosen.require_intact()
        # A split is looked for only where nothing was found, since that reads the tables again.
        if chosen.manifest["rows"] == 0 and split is not None and not pick_of(split):
            chosen._require_split(split)
        return chosen

    @staticmethod
    def from_manifest(catalog: Catalog, manifest: dict[str, Any], verify: bool = False) -> TrainingSet:
        """Return the training set of a manifest; `verify` as of `from_pins`.

        Raises:
            UserError: for anything but a manifest, and when the rows in the store are not those of it.
        """
        _check_manifest(manifest)
        chosen = TrainingSet(catalog, manifest)
        if verify:
            chosen.require_intact()
        if chosen._rows.measure() != (manifest["rows"], manifest["digest"]):
            raise UserError(
                "the store no longer has the rows of this manifest; "
                "make the training set again from its dataset version"
            )
        return chosen

    def require_intact(self) -> None:
        """Check that the files of the set's tables match their hashes; reads them once.

        Raises:
            RemovedRows: when rows of the tables were forgotten since the set was made.
            DamagedFiles: in one line, with the command that computes the rows again.
        """
        tables = self._manifest["tables"]
        with removal_errors(self.catalog.receipts, map(table_version, tables)):
            for table in tables:
                self.catalog.features.require_intact(table["table"], table["lance_version"])

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Stream all rows.

        Raises:
            RemovedRows: when rows of the tables were forgotten since the set was made.
        """
        schema = self._rows.schema()
        for batch in self._rows.stream(with_vectors=True):
            chosen = batch.select(schema.names)
            # A join gives the types of DuckDB: times in the zone of the machine, lists with other names.
            yield chosen.cast(schema) if len(self._manifest["tables"]) > 1 else chosen

    def splits(self) -> list[str]:
        """Return the splits of the set's rows, sorted."""
        return self._rows.splits()

    def of_split(self, split: str) -> TrainingSet:
        """Return the rows of a split as a set of their own, with a manifest of its own.

        Raises:
            UserError: for a split that the tables do not have.
        """
        self._require_split(require_text("split", split, "train"))
        whole, own = self._manifest["where"], f"split = {sql.literal(split)}"
        chosen = {**self._manifest, "where": f"({whole}) AND {own}" if whole else own}
        return TrainingSet(self.catalog, {k: v for k, v in chosen.items() if k not in ("rows", "digest")})

    def _require_split(self, split: str) -> None:
        """Check that a row of the tables has a split; tables without rows have every split."""
        known = self._rows.splits(filtered=False)
        if known and split not in known:
            raise UserError(
                f"{self._manifest['dataset_version']} has no split {split!r}; it has: {', '.join(known)}"
            )

    @property
    def published_at(self) -> str:
        """Time of publication of the latest of its tables, ISO 8601."""
        dataset, version = self._manifest["dataset_version"].split("@")
        pins = [
            self.catalog.registry.pins.get(Cell(dataset, version, table["modality"]), table["pin"])
            for table in self._manifest["tables"]
        ]
        return max(pin.published_at for pin in pins if pin)

    def to_arrow(self) -> pa.Table:
        """Read all rows into memory; without rows, an empty table of the same columns and types."""
        batches = list(self.stream())
        return pa.Table.from_batches(batches) if batches else self._rows.schema().empty_table()

    def to_polars(self) -> pl.DataFrame:
        """Read all rows into memory, as a Polars frame."""
        with explain_missing("TrainingSet.to_polars"):
            import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_torch(  # noqa: PLR0913 - the public API
        self,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        media: bool = False,
        verify: bool | None = None,
    ) -> Loader:
        """Return a loader that streams batches, see `mm_resources.retrieval.loader.Loader`.

        An integer column that is null in any row of the set's tables is a list of ints and None in all
        batches, so that no digit is lost; any other integer column is a tensor of its own type.

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
            verify: whether to compare the tables' files with their hashes before; by default where that costs
                some 3% of an epoch: one process that reads a local store in random order.

        Raises:
            DamagedFiles: when a table is damaged.
            UserError: for an argument out of its range, and where the rows do not fill a batch on each rank.
        """
        require_flag("media", media)
        with explain_missing("TrainingSet.to_torch", "train"):
            from torch import distributed

        together = distributed.is_available() and distributed.is_initialized()
        rank = rank if rank is not None else distributed.get_rank() if together else 0
        if world_size is None:
            world_size = distributed.get_world_size() if together else 1
        check_loader(batch_size, shuffle, seed, workers, rank, world_size)
        if verify is not None:
            require_flag("verify", verify)
        if verify or (verify is None and shuffle and world_size == 1 and self.catalog.store.is_local):
            self.require_intact()
        rows, lists = self._rows.reader(media), self._rows.integers_with_nulls()
        blobs = self.catalog.blobs if media else None
        return Loader(rows, len(rows), batch_size, shuffle, seed, workers, rank, world_size, blobs, lists)

    def to_ray(self, media: bool = False, blocks: int = 0) -> ray.data.Dataset:
        """Return a Ray dataset that reads the rows on its workers.

        Vectors are tensors, float32 [n, dimension]; all other columns have their Arrow types (lists are
        lists, times are in UTC, integers may be null); media are binary. The workers open the store by its
        root: on a cluster that is a URL or a folder that all nodes mount. Connect Ray before (``ray.init``);
        otherwise Ray starts with all of the machine.

        Args:
            media: as for `to_torch`; the bytes are read on the workers.
            blocks: number of blocks that are read separately; by default one for some sixteen thousand rows.

        Raises:
            UserError: for an argument out of its range.
        """
        require_flag("media", media)
        require_number("blocks", blocks, 0)
        with explain_missing("TrainingSet.to_ray"):
            import ray.data

        rows = self._rows.reader(media)
        numbers = ray.data.range(
            len(rows), override_num_blocks=blocks or -(-len(rows) // lance_datasets.READ_ROWS) or 1
        )
        # Without media a whole block is read at once: its rows are neighbours in the set.
        return numbers.map_batches(
            BlockReader(rows, media), batch_size=MEDIA_ROWS if media else None, zero_copy_batch=True
        )


def _table(pin: Pin, embedder: str | Mapping[str, str] | None, modalities: int) -> PinnedTable:
    """Return the table of a pin that an argument `embedder` chooses, see `TrainingSet.from_pins`."""
    try:
        return pin.table(embedder.get(pin.modality) if isinstance(embedder, Mapping) else embedder)
    except UserError as error:
        if modalities == 1 or isinstance(embedder, Mapping):
            raise
        raise UserError(
            f"{error}; choose one for each modality: embedder={{'MODALITY': 'NAME'}} in Python, "
            "--embedder MODALITY=NAME for `mm export`"
        ) from None


def _check_manifest(manifest: object) -> None:
    """Check that a manifest has the entries of one, with their types."""
    given = manifest if isinstance(manifest, dict) else {}
    wrong = [name for name, kinds in _MANIFEST.items() if not isinstance(given.get(name, ...), kinds)]
    tables = given.get("tables")
    if not wrong and tables:
        wrong = [
            f"tables: {name}"
            for table in tables
            for name, kind in _MANIFEST_TABLE.items()
            if not isinstance(table, dict) or not isinstance(table.get(name), kind)
        ]
    if wrong or not tables:
        raise UserError(
            f"this is no manifest of a training set (wrong: {wrong[0] if wrong else 'tables'}); "
            "give TrainingSet.manifest, or the content of _manifest.json"
        )


_MANIFEST: dict[str, tuple[type, ...]] = {
    "dataset_version": (str,), "tables": (list,), "where": (str, type(None)), "columns": (list,),
    "rows": (int,), "digest": (str,),
}  # fmt: skip
_MANIFEST_TABLE = {"modality": str, "pin": int, "table": str, "lance_version": int}


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
