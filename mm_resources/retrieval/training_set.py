"""Training sets: pinned, filtered, joined and mixed features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_resources.catalog import Catalog
from mm_resources.features.removed_rows import removal_errors
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_flag, require_text
from mm_resources.retrieval.display import describe, render
from mm_resources.retrieval.loader_arguments import LoaderArguments
from mm_resources.retrieval.manifests import check_manifest, pin_manifest, rows_of, tables_of
from mm_resources.retrieval.pick_splits import pick_of
from mm_resources.retrieval.row_conversions import RowConversions
from mm_resources.retrieval.run_inputs import RunInput
from mm_resources.retrieval.training_rows import table_version

if TYPE_CHECKING:
    from mm_resources.retrieval.loader import Loader


class TrainingSet(RowConversions, RunInput):
    """Rows of one or several pinned tables.

    With one modality a row has ``feature_id``, ``sample_id``, ``entity_id``, ``vector`` and the chosen
    columns. Several modalities are joined on ``entity_id``, and all other columns are prefixed, as in
    ``image__vector``.

    A mixture draws the rows of each epoch from several such sets by weight, or by label
    (`mm_resources.retrieval.mixture_rows`); all but the loader give those of epoch 0.

    Args:
        manifest: names the tables, versions, filter and columns; row count and digest may be absent.
    """

    def __init__(self, catalog: Catalog, manifest: dict[str, Any]) -> None:
        self.catalog = catalog
        self._manifest = manifest
        self._rows = rows_of(catalog, manifest)

    def __len__(self) -> int:
        """Number of rows; of a mixture, of an epoch."""
        return int(self.manifest["rows"])

    def __repr__(self) -> str:
        return describe(self.manifest)

    def _repr_html_(self) -> str:
        """Return the set as a notebook shows it: its first rows, with thumbnails and players."""
        return render(self)

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
    def from_pins(  # noqa: PLR0913 - one for each property of a set
        catalog: Catalog,
        pins: list[Pin],
        embedder: str | Mapping[str, str] | None,
        where: str | Mapping[str, str] | None,
        split: str | None,
        columns: list[str] | dict[str, list[str]],
        classes: Sequence[str] | None = None,
        verify: bool = False,
    ) -> TrainingSet:
        """Return the training set of the rows of pins that pass a filter, with its manifest.

        Args:
            pins: one for each modality.
            embedder: embedder whose tables are read, or one for each modality; by default the primary one.
            where: SQL over the feature columns, of all modalities or by modality.
            split: split whose rows are chosen, or ``pick:NAME`` or ``unpicked:NAME``.
            columns: columns beside ids and vector, of all modalities or by modality.
            classes: names of the classes, by number; by default the labels of the rows that pass `where`,
                sorted.
            verify: whether to compare the tables' files with their hashes.

        Raises:
            UserError: for a column, an embedder or a split that a table lacks, or a wrong filter.
            DamagedFiles: with `verify`, when a table is damaged.
        """
        manifest = pin_manifest(catalog, pins, embedder, where, split, columns, classes)
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
        check_manifest(manifest)
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
        tables = tables_of(self._manifest)
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
            yield chosen.cast(schema) if self._rows.is_joined else chosen

    def splits(self) -> list[str]:
        """Return the splits of the set's rows, sorted."""
        return self._rows.splits()

    def of_split(self, split: str) -> TrainingSet:
        """Return the rows of a split as a set of their own, with a manifest of its own.

        Raises:
            UserError: for a split that the tables do not have.
        """
        self._require_split(require_text("split", split, "train"))
        if "parts" in self._manifest:
            raise UserError(
                "a mixture is not cut into splits; choose the split when it is made: split='train'"
            )
        whole, own = self._manifest["where"], f"split = {sql.literal(split)}"
        if isinstance(whole, dict):
            names = [table["modality"] for table in self._manifest["tables"]]
            where: Any = {name: f"({whole[name]}) AND {own}" if whole.get(name) else own for name in names}
        else:
            where = f"({whole}) AND {own}" if whole else own
        chosen = {**self._manifest, "where": where}
        return TrainingSet(self.catalog, {k: v for k, v in chosen.items() if k not in ("rows", "digest")})

    def _require_split(self, split: str) -> None:
        """Check that a row of the tables has a split; tables without rows have every split."""
        known = self._rows.splits(filtered=False)
        if known and split not in known:
            raise UserError(
                f"{self._manifest['dataset_version']} has no split {split!r}; it has: {', '.join(known)}"
            )

    @property
    def classes(self) -> list[str]:
        """Names of the classes of its labels, by number (``label_id`` of batches); [] for a set without."""
        return list(self._manifest.get("classes") or [])

    def to_torch(  # noqa: PLR0913 - the public API
        self,
        batch_size: int | None = 256,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        media: bool = False,
        decode: str | None = None,
        sandbox: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        verify: bool | None = None,
    ) -> Loader:
        """Return a torch `IterableDataset` of batches, see `mm_resources.retrieval.loader.Loader`.

        Labels come as texts, and as numbers of their classes in ``label_id`` (int64; -100, which torch's
        losses leave out, for a row without one).

        An integer column that is null in any row of the set's tables is a list of ints and None in all
        batches, so that no digit is lost; any other integer column is a tensor of its own type.

        Args:
            batch_size: rows of a batch; None for single rows, which Hugging Face's ``Trainer`` batches
                itself (there with ``world_size=1``, since it also shares rows among ranks).
            shuffle: whether to shuffle the rows again each epoch.
            seed: seed of the order.
            workers: threads that read ahead; 0 reads when a batch is requested.
            rank, world_size: this process among those that train together; by default those of
                torch.distributed.
            media: whether each batch has a column ``media`` (of several modalities, ``image__media`` ...):
                the bytes of each row's sample, verified against their hash and not decoded; the column
                ``span`` names the part of it that the row is.
            decode: ``pil`` or ``torch``: media are decoded, of sounds and films the row's span
                (`mm_resources.retrieval.media_decoding.MediaDecoder`); implies `media`.
            sandbox: whether they are decoded in confined children.
            transform: function of each row, a dict; returns what takes its place.
            collate: function of a list of rows; returns the batch. By default tensors of one shape are
                stacked.
            drop_last: whether rows that do not fill a batch on each rank are left out.
            verify: whether to compare the tables' files with their hashes before; by default where that costs
                some 3% of an epoch: one process that reads a local store in random order.

        Raises:
            DamagedFiles: when a table is damaged.
            UserError: for an argument out of its range, and where the rows do not fill a batch on each rank.
        """
        require_flag("media", media)
        with explain_missing("TrainingSet.to_torch", "train"):
            from torch import distributed

        from mm_resources.retrieval.loaders import make_loader  # after torch, which it needs

        together = distributed.is_available() and distributed.is_initialized()
        rank = rank if rank is not None else distributed.get_rank() if together else 0
        if world_size is None:
            world_size = distributed.get_world_size() if together else 1
        if verify is not None:
            require_flag("verify", verify)
        arguments = LoaderArguments(
            batch_size,
            shuffle,
            seed,
            workers,
            rank,
            world_size,
            media,
            decode,
            sandbox,
            transform,
            collate,
            drop_last,
        )
        arguments.check()
        if verify or (verify is None and shuffle and world_size == 1 and self.catalog.store.is_local):
            self.require_intact()
        return make_loader(self.catalog, self._rows, self.manifest, arguments)
