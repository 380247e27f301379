"""Feature tables: one indexed LanceDB table for each candidate, read at the version that a pin names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.embedders.base import slug_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.blobs.forgotten import Receipts
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.features.vector_indexes import Recall
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.storage import lance_datasets
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    import lance
    import lancedb
    from lancedb.table import Table


# Tables that stay open, the least recently used leaving first.
_OPEN_TABLES = 64


@dataclass(frozen=True)
class Candidate:
    """A feature table as it was written, before it is published.

    Attributes:
        lance_version: the version that holds rows and index.
        index: kind of the vector index, see `vector_indexes`.
        digest: over the rows, without their vectors.
    """

    lance_version: int
    rows: int
    index: str
    digest: str


class FeatureTables:
    """The feature tables of a store."""

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self.store, self.receipts = store, receipts
        # A version never changes, so that it is opened once; of a store on S3 that is most of a search.
        self._opened = lru_cache(_OPEN_TABLES)(self._open)

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
            gone = self.receipts.naming(table)
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

    # -- building

    def write_candidate(self, name: str, contract: Contract, batches: Iterable[pa.Table]) -> Candidate:
        """Write and index a candidate table, which no reader sees before a pin names it.

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
        return Candidate(version, digest.rows, index, digest.hexdigest())

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
