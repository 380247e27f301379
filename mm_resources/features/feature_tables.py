"""The feature store: LanceDB tables behind pins. Needs no Dagster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.embedders.base import slug_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.blobs.forgotten import Receipts
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.features.query_vectors import Queries, Query
from mm_resources.features.vector_indexes import Recall
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.registry.registry import Registry
from mm_resources.settings import Settings, absolute
from mm_resources.storage import lance_datasets
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    import lance
    import lancedb
    from lancedb.table import Table

    from mm_resources.features.training_set import TrainingSet


# Tables that a feature store keeps open, the least recently asked for leaving first.
_OPEN_TABLES = 64


class FeatureStore:
    """Published features: search, training sets, decisions, explanations."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = Registry(store)
        self._queries = Queries()
        # A version never changes, so that it is opened once; of a store on S3 that is most of a search.
        self._opened = lru_cache(_OPEN_TABLES)(self._open)

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None) -> FeatureStore:
        """The feature store of a store's root, by default of ``MM_STORE``."""
        return FeatureStore(
            Store(absolute(os.fspath(root)) if root is not None else Settings.from_environment().store)
        )

    # -- reading

    def search(
        self,
        query: Query,
        *,
        dataset_version: str | Sequence[str] | None = None,
        modality: str | Sequence[str],
        embedder: str | None = None,
        k: int = 10,
        where: str | None = None,
        mode: str = "vector",
        group_by: str | None = None,
        find: str = "neighbours",
        label: str | None = None,
    ) -> pa.Table:
        """The best k features, best first, of what is published.

        Args:
            query: text, a media path or bytes, a vector, or ``id:`` and a feature, segment or sample id.
            dataset_version: one version or alias, several, or None: all that have published the modality.
            modality: one, or several whose tables share a space.
            embedder: name of the embedder whose tables are searched; the primary one by default.
            where: SQL over the feature columns, applied before the search.
            mode: ``vector``; ``text``, for words in texts and transcripts; ``hybrid``, both by reciprocal rank fusion.
            group_by: ``sample`` or ``entity``: the best hit of each, so that a long video does not fill the page.
            find: ``neighbours``; ``duplicates`` (other samples with a cosine of 0.95 or more); ``hard_negatives`` (near, but of
                another label).
            label: of the query, for hard negatives; by default that of the sample that an id names.

        Returns:
            The columns of a hit, ``key``, ``text``, ``dataset_version`` and ``score``: cosine similarity, BM25 for
            ``text``, the fused ranks for ``hybrid``.

        Raises:
            UserError: when nothing is published, the query fits no space of the tables, they lie in several spaces, or the
                filter is wrong.
        """
        from mm_resources.features.search import Search

        pins = self._pins(dataset_version, [modality] if isinstance(modality, str) else list(modality))
        return Search(self, self._queries, pins, embedder).run(query, k, where, mode, group_by, find, label)

    def _pins(self, dataset_version: str | Sequence[str] | None, names: list[str]) -> list[Pin]:
        """What is published of the versions that were asked for, each once."""
        if dataset_version is not None:
            versions = (
                [dataset_version]
                if isinstance(dataset_version, str)
                else list(dict.fromkeys(dataset_version))
            )
            return [self.published(version, name) for version in versions for name in names]
        cells = [
            cell
            for version in self.registry.datasets()
            for cell in self.registry.cells(version)
            if cell.modality in names
        ]
        pins = [pin for cell in cells if (pin := self.registry.pin(cell))]
        if not pins:
            raise UserError(
                f"nothing is published of any {' or '.join(names)}; run `mm backfill DATASET@VERSION`"
            )
        return pins

    def training_set(
        self,
        dataset_version: str | None = None,
        *,
        modality: str | list[str] | None = None,
        where: str | None = None,
        split: str | None = None,
        columns: list[str] | None = None,
        embedder: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> TrainingSet:
        """A pinned set of features; several modalities are joined on ``entity_id``.

        Args:
            manifest: of an earlier training set, instead of everything else: the same rows again.
        """
        from mm_resources.features.training_set import TrainingSet

        if manifest is not None:
            return TrainingSet.from_manifest(self, manifest)
        if dataset_version is None or modality is None:
            raise UserError("training_set needs a dataset version and a modality, or a manifest")
        names = [modality] if isinstance(modality, str) else modality
        pins = [self.published(dataset_version, name) for name in names]
        return TrainingSet.pinned(self, pins, embedder, where, split, columns or ["label"])

    def decisions(self, dataset_version: str, modality: str) -> pa.Table:
        """Every curated sample's decision as published (before the first publish: as curated): kept, rules, split."""
        from mm_resources.tables.stage_tables import StageTables

        cell = self.registry.cells(dataset_version, modality)[0]
        pin = (
            self.published(dataset_version, modality)
            if self.registry.aliases.resolve(dataset_version)
            else self.registry.pin(cell)
        )
        version = pin.stages["curated_samples"]["lance_version"] if pin else None
        columns = [
            "sample_id",
            "key",
            "kept",
            "rule",
            "reason",
            "rules",
            "duplicate_group",
            "duplicates",
            "split_group",
            "split",
        ]
        try:
            return StageTables(self.store).read("curated_samples", cell, columns, version=version).read_all()
        except LookupError as error:
            raise UserError(f"{error}; run `mm backfill {dataset_version}`") from None

    def explain(self, identifier: str, dataset_version: str | None = None) -> dict[str, Any]:
        """Where a feature (or segment, or sample) came from: the whole chain. See `mm_resources.features.explain`."""
        from mm_resources.features.explain import explain

        return explain(self, identifier, dataset_version)

    def published(self, dataset_version: str, modality: str) -> Pin:
        """The pin of a cell; behind an alias, the one that was promoted.

        Raises:
            UserError: when nothing is published of it.
        """
        cell = self.registry.cells(dataset_version, modality)[0]
        alias = self.registry.aliases.resolve(dataset_version)
        if alias is not None and modality not in alias.pins:
            raise UserError(
                f"{dataset_version} is {alias.dataset_version}, of which no {modality} was promoted"
            )
        pin = self.registry.pin(cell, alias.pins[modality] if alias else None)
        if pin is None:
            raise UserError(
                f"nothing is published of {dataset_version} {modality}; run `mm backfill {dataset_version}`"
            )
        return pin

    def table(self, pinned: PinnedTable) -> Table:
        """A pinned table at its version, to be read by any number of threads."""
        return self._opened(pinned.table, pinned.lance_version)

    def _open(self, name: str, version: int) -> Table:
        table = self.database.open_table(name)
        table.checkout(version)
        return table

    def dataset(self, table: str, version: int) -> lance.LanceDataset:
        """A feature table at a version as a Lance dataset, for scans.

        Raises:
            UserError: when the store does not hold it.
        """
        found = lance_datasets.open_dataset(self._uri(table), version)
        if found is None:
            gone = Receipts(self.store).naming(table)
            raise UserError(
                f"table {table} is not in this store{f' at version {version}: {gone}' if gone else ''}"
            )
        return found

    def rows(self, pin: Pin, columns: list[str]) -> pa.RecordBatchReader:
        """Stream columns of a pin's primary table."""
        dataset = self.dataset(pin.primary.table, pin.primary.lance_version)
        return lance_datasets.reader(dataset, dataset.schema, columns)

    def has(self, table: str, version: int) -> bool:
        """Whether the store holds a feature table at a version."""
        return lance_datasets.open_dataset(self._uri(table), version) is not None

    def _uri(self, table: str) -> str:
        return self.store.uri(f"features/{table}.lance")

    @cached_property
    def database(self) -> lancedb.DBConnection:
        import lancedb

        if self.store.is_local:
            os.makedirs(self.store.path("features"), exist_ok=True)
        uri = self.store.uri("features")
        return lancedb.connect(uri, storage_options=lance_options(uri))

    def embedder(self, pinned: PinnedTable) -> Embedder:
        """The embedder that made a table; see `Queries.embedder`."""
        return self._queries.embedder(pinned)

    # -- building (called by the assets)

    def write_candidate(
        self, name: str, contract: Contract, batches: Iterable[pa.Table]
    ) -> tuple[int, int, str, str]:
        """Write and index a candidate table; (Lance version, rows, index, digest). No reader sees it before a pin.

        Raises:
            Fenced: when another run wrote the same candidate meanwhile.
        """
        uri = self._uri(name)
        read_version = lance_datasets.fence(uri, contract.bare)
        digest = _digest(contract.schema)
        texts = 0

        def counted() -> Iterator[pa.Table]:
            nonlocal texts
            for batch in batches:
                cast = contract.cast(batch)
                digest.update(cast)
                texts += pc.count(cast["text"]).as_py()
                yield cast

        version = lance_datasets.overwrite(
            uri, contract.bare, lance_datasets.rows_of(counted()), read_version, f"candidate {name}"
        )
        index = vector_indexes.index_for(digest.rows)
        if index != vector_indexes.EXACT or texts:
            version = self._index(name, version, index, bool(texts))
        return version, digest.rows, index, digest.hexdigest()

    def _index(self, name: str, version: int, index: str, texts: bool) -> int:
        return vector_indexes.build(self.database.open_table(name), version, index, texts)

    def tag(self, name: str, version: int, tag: str) -> None:
        """Keep a table's version for as long as the tag exists."""
        tags = self.database.open_table(name).tags
        if tag not in tags.list():
            tags.create(tag, version)

    def measured(self, name: str, version: int) -> tuple[int, str]:
        """Rows and digest of a table's version, as `write_candidate` found them."""
        dataset = self.dataset(name, version)
        digest = _digest(dataset.schema)
        for batch in lance_datasets.reader(dataset, dataset.schema, list(digest.columns)):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def recall(self, name: str, version: int, index: str) -> Recall:
        """recall@10 of the table's index against exact search, with the table's own vectors as queries (seeded)."""
        table = self.database.open_table(name)
        table.checkout(version)
        rows = table.count_rows()
        if index == vector_indexes.EXACT or rows == 0:
            return Recall(1.0, 1.0)
        dataset = self.dataset(name, version)
        vectors = dataset.take(vector_indexes.sample_of(rows), columns=["vector"])["vector"].combine_chunks()
        return vector_indexes.measure(
            table, dataset, vectors.flatten().to_numpy().reshape(len(vectors), -1), index
        )


_DIGESTED = {
    "feature_id",
    "sample_id",
    "entity_id",
    "content_hash",
    "label",
    "split",
    "passed",
    "duplicate_group",
    "partial",
    "text",
}


def _digest(schema: pa.Schema) -> RowDigest:
    return RowDigest(tuple(name for name in schema.names if name in _DIGESTED or name.startswith("user__")))


def table_name(cell: Cell, embedder: str) -> str:
    """LanceDB table of a cell and embedder."""
    return f"{cell.dataset}.{cell.version}.{cell.modality}.{slug_of(embedder)}"
