"""Feature tables: an indexed LanceDB table for each cell and embedder, read at the version of a pin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.embedders.base import slug_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.blobs.receipts import Receipts
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.features.removed_rows import removed_rows
from mm_resources.features.table_paths import FOLDER, table_path
from mm_resources.features.vector_indexes import Recall
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.store import Store, remove_tree
from mm_resources.storage.table_files import record_written, require_intact

if TYPE_CHECKING:
    import lance
    import lancedb


# Size of the cache of open tables; the least recently used one is closed first. One takes some 30 KiB, and
# a search over more tables than these opens each of them anew.
_OPEN_TABLES = 2_048


@dataclass(frozen=True)
class Candidate:
    """A feature table that was written and indexed, and is not published yet.

    Attributes:
        table: name of its table, which other versions of the dataset may share.
        lance_version: version that holds the rows and their indexes.
        rows: number of rows.
        index: type of the vector index, see `vector_indexes`.
        digest: digest of the rows, without their vectors.
    """

    table: str
    lance_version: int
    rows: int
    index: str
    digest: str


class FeatureTables:
    """The feature tables of a store."""

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self.store, self.receipts = store, receipts
        # A version never changes, so it is opened once; on S3, opening is the larger part of a search.
        self._opened = lru_cache(_OPEN_TABLES)(self._open)
        self._recalls: dict[tuple[str, int, str], Recall] = {}

    def table(self, pinned: PinnedTable) -> lance.LanceDataset:
        """Open a pinned table at its version to search it, for any number of reading threads.

        By Lance, whose queries LanceDB would pass on: importing LanceDB takes a second of CPU more.

        Raises:
            RemovedRows, UserError: as `dataset`.
        """
        return self._opened(pinned.table, pinned.lance_version)

    def _open(self, name: str, version: int) -> lance.LanceDataset:
        return self.dataset(name, version, self._session)

    @cached_property
    def _session(self) -> lance.Session:
        """One cache of indexes and metadata for all tables that are searched: memory has one bound."""
        import lance

        return lance.Session()

    def dataset(self, table: str, version: int, session: lance.Session | None = None) -> lance.LanceDataset:
        """Open a feature table at a version as a Lance dataset, for scans.

        Raises:
            RemovedRows: when rows of it were forgotten since; names the receipt.
            UserError: when the store does not have it.
        """
        dataset = lance_datasets.open_dataset(self.uri(table), version, session)
        if dataset is None:
            if removed := removed_rows(self.receipts, table, version):
                raise removed
            raise UserError(f"table {table} is not in this store")
        return dataset

    def require_intact(self, table: str, version: int) -> None:
        """Check that the files of a feature table, indexes included, match their hashes.

        Raises:
            DamagedFiles: in one line, with the command that computes the rows again.
        """
        require_intact(self.dataset(table, version), f"features/{table}")

    def rows(self, pin: Pin, columns: list[str]) -> pa.RecordBatchReader:
        """Stream columns of a pin's primary table."""
        dataset = self.dataset(pin.primary.table, pin.primary.lance_version)
        return lance_datasets.reader(dataset, dataset.schema, columns)

    def has(self, table: str, version: int) -> bool:
        """Return whether the store has a feature table at a version."""
        return lance_datasets.open_dataset(self.uri(table), version) is not None

    def exists(self, table: str) -> bool:
        """Return whether the store has a feature table of this name."""
        return lance_datasets.open_dataset(self.uri(table)) is not None

    def written_at(self, table: str) -> datetime:
        """Return when the last version of a table was written."""
        manifests = self.store.entries(f"{table_path(table)}/_versions")
        return max((each.modified for each in manifests), default=datetime.now(UTC))

    def remove(self, table: str) -> None:
        """Remove a table with all its versions; no error when it does not exist."""
        remove_tree(self.store, table_path(table))

    def uri(self, table: str) -> str:
        """Return the URI of a feature table."""
        return self.store.uri(table_path(table))

    @cached_property
    def database(self) -> lancedb.DBConnection:
        """Connection to the store's LanceDB database."""
        import lancedb

        if self.store.is_local:
            os.makedirs(self.store.path(FOLDER), exist_ok=True)
        uri = self.store.uri(FOLDER)
        return lancedb.connect(uri, storage_options=lance_options(uri))

    def write_candidate(
        self,
        name: str,
        contract: Contract,
        batches: Iterable[pa.Table],
        metadata: Mapping[str, str] | None = None,
    ) -> Candidate:
        """Write and index a whole candidate table; readers see it once a pin names it.

        `versions.write_version` writes what differs from a published version instead, where that is less.

        Args:
            name: name of the table, see `table_name`.
            contract: contract of the rows, which are cast to it.
            metadata: of the table's schema, see `table_metadata`.

        Raises:
            Fenced: when another run writes the same candidate.
        """
        uri = self.uri(name)
        read_version = lance_datasets.fence(uri, contract.bare)
        digest = digest_of(contract.schema)
        texts = 0

        def counted_batches() -> Iterator[pa.Table]:
            nonlocal texts
            for batch in batches:
                cast = contract.cast(batch)
                digest.update(cast)
                texts += pc.count(cast["text"]).as_py()
                yield cast

        fragments = lance_datasets.write_fragments(
            uri, contract.bare, lance_datasets.batches_of(counted_batches())
        )
        schema = contract.bare.with_metadata(dict(metadata)) if metadata else contract.bare
        version = lance_datasets.commit(uri, schema, fragments, read_version, f"candidate {name}")
        index = vector_indexes.index_for(digest.rows)
        if index != vector_indexes.EXACT or texts:
            table = self.database.open_table(name)
            version = vector_indexes.build(table, version, index, bool(texts))
            record_written(self.dataset(name, version))
        return Candidate(name, version, digest.rows, index, digest.hexdigest())

    def tag(self, name: str, version: int, tag: str) -> None:
        """Tag a version of a table; it stays for as long as the tag exists. A tag of that name moves."""
        dataset_versions.tag(self.uri(name), version, tag)

    def untag(self, name: str, tag: str) -> None:
        """Remove a tag; its version stays until upkeep, unless another tag names it."""
        dataset_versions.untag(self.uri(name), tag)

    def measure(self, name: str, version: int) -> tuple[int, str]:
        """Compute the row count and digest of a table's version as `write_candidate` does."""
        dataset = self.dataset(name, version)
        digest = digest_of(dataset.schema)
        for batch in lance_datasets.reader(dataset, dataset.schema, list(digest.columns)):
            digest.update(pa.Table.from_batches([batch]))
        return digest.rows, digest.hexdigest()

    def recall(self, name: str, version: int, index: str) -> Recall:
        """Measure recall@10 of a table's index against exact search; queries are some of its vectors.

        What `try_recall` has measured is not measured again.
        """
        known = self._recalls.pop((name, version, index), None)
        return known or self._measure_recall(name, version, index)

    def try_recall(self, name: str, version: int, index: str) -> Recall:
        """Measure as `recall` does, and keep the result for it: a version does not change."""
        found = self._recalls[name, version, index] = self._measure_recall(name, version, index)
        return found

    def _measure_recall(self, name: str, version: int, index: str) -> Recall:
        dataset = self.dataset(name, version, self._session)
        rows = dataset.count_rows()
        if index == vector_indexes.EXACT or rows == 0:
            return Recall(1.0, 1.0)
        queries = vectors_of(dataset.take(vector_indexes.query_rows(rows), columns=["vector"]))
        return vector_indexes.measure_recall(dataset, queries, index)


# Columns that `Candidate.digest` covers, beside the user's; not the run, its time or the fingerprints.
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


def digest_of(schema: pa.Schema) -> RowDigest:
    """Return an empty digest over the columns of a feature table that `Candidate.digest` covers."""
    return RowDigest(tuple(name for name in schema.names if name in _DIGESTED or name.startswith("user__")))


def table_name(cell: Cell, embedder: str) -> str:
    """Return the name of the LanceDB table of a cell and embedder."""
    return f"{cell.dataset}.{cell.version}.{cell.modality}.{slug_of(embedder)}"
