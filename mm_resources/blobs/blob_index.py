"""The index of a store's blobs: where each one lies, and which locations garbage collection has condemned.

A condemned location is off the index, so that no later ingest refers to it, while its bytes stay for a grace
period; then it is struck, so that no reader finds it, and removed (see
`mm_resources.maintenance.garbage_collection`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.fields import TIME
from mm_resources.storage import lance_datasets
from mm_resources.storage.hash_set import HashSet
from mm_resources.storage.lance_errors import is_missing_file
from mm_resources.storage.store import LARGE_BYTES, Store

INDEX = pa.schema(
    [("content_hash", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)
# How often a look-up that found a version of the index removed is repeated, on the next one.
_TRIES = 5
CONDEMNED = pa.schema([*INDEX, ("at", TIME), ("struck", pa.bool_())])


@dataclass(frozen=True)
class Location:
    """The location of a blob below the store's root."""

    content_hash: str
    path: str
    offset: int
    size: int


def locations_of(rows: pa.RecordBatch | pa.Table) -> list[Location]:
    """Convert rows with at least the columns of `INDEX`."""
    return [Location(**row) for row in rows.select(INDEX.names).to_pylist()]


class BlobIndex:
    """Locations of the blobs of a store. Picklable, without the hashes that it has read.

    A blob that two writers stored at once has two locations, both good.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: HashSet | None = None
        # Of large blobs; these are so few that the set is small.
        self._known_sizes: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_known": None, "_known_sizes": set()}

    @property
    def _uri(self) -> str:
        return self.store.uri("blobs/index.lance")

    @property
    def _condemned_uri(self) -> str:
        return self.store.uri("blobs/condemned.lance")

    def __contains__(self, digest: str) -> bool:
        """Return whether a blob is indexed, as this instance has read the index."""
        return bytes.fromhex(digest) in self._hashes()

    def has_large(self, size: int) -> bool:
        """Return whether a large blob of this size is indexed, as this instance has read the index."""
        self._hashes()
        return size in self._known_sizes

    def rows(
        self,
        columns: list[str] | None = None,
        hashes: Iterable[str] | None = None,
        path: str | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the locations of all blobs, of some blobs, or in one object."""
        return lance_datasets.reader(
            lance_datasets.open_dataset(self._uri), INDEX, columns, _where(hashes, path)
        )

    def locations(self, digest: str) -> list[Location]:
        """Return the indexed locations of a blob.

        Read once more where forgetting has removed the version of the index that was being read.
        """
        for tries_left in range(_TRIES, -1, -1):
            try:
                if (dataset := lance_datasets.open_dataset(self._uri)) is not None:
                    where = _where(hashes=[digest])
                    return locations_of(lance_datasets.reader(dataset, INDEX, where=where).read_all())
            except (OSError, ValueError) as error:
                if not is_missing_file(error) or not tries_left:
                    raise
        return []

    def referable_rows(self) -> pa.RecordBatchReader:
        """Stream the locations that may be referenced: indexed, or condemned and not yet struck."""

        def batches() -> Iterator[pa.RecordBatch]:
            # Before and after the index, so that a location that is restored or condemned meanwhile is seen
            # at least once.
            before = self.condemned_rows(struck=False)
            yield from self.rows()
            for reader in (before, self.condemned_rows(struck=False)):
                for batch in reader:
                    yield batch.select(INDEX.names)

        return pa.RecordBatchReader.from_batches(INDEX, batches())

    def sample_rows(self, count: int) -> pa.RecordBatchReader:
        """Stream this many locations, chosen at random."""
        dataset = lance_datasets.open_dataset(self._uri)
        rows = (
            INDEX.empty_table()
            if dataset is None
            else dataset.sample(min(count, dataset.count_rows()), columns=INDEX.names)
        )
        return rows.to_reader()

    def _hashes(self) -> HashSet:
        if self._known is None:
            self._known_sizes = set()

            def hashes() -> Iterator[Iterable[bytes]]:
                for batch in self.rows(["content_hash", "size"]):
                    self._known_sizes.update(size for size in batch["size"].to_pylist() if size > LARGE_BYTES)
                    yield map(bytes.fromhex, batch["content_hash"].to_pylist())

            self._known = HashSet(hashes())
        return self._known

    def append(self, locations: list[Location]) -> None:
        """Index blobs that are written; only from then on do they count as stored."""
        rows = pa.Table.from_pylist([vars(location) for location in locations], schema=INDEX)
        lance_datasets.append(self._uri, rows)
        known = self._hashes()
        for location in locations:
            known.add(bytes.fromhex(location.content_hash))
            if location.size > LARGE_BYTES:
                self._known_sizes.add(location.size)

    def restore(self, locations: list[Location]) -> None:
        """Put locations back on the index, except those of blobs that it has."""
        missing = [location for location in locations if location.content_hash not in self]
        if missing:
            self.append(missing)

    def remove(self, hashes: Iterable[str]) -> None:
        """Remove blobs from the index, so that their bytes are stored again when they come again."""
        lance_datasets.delete(self._uri, "content_hash", hashes)
        self._known = None

    def remove_locations(self, locations: list[Location]) -> None:
        """Remove locations from the index; other locations of the same blobs stay."""
        for location in locations:
            where = f"path = {sql.literal(location.path)}"
            lance_datasets.delete(self._uri, "content_hash", [location.content_hash], where)
        self._known = None

    def remove_pack(self, path: str) -> None:
        """Remove the locations in a pack whose blobs have moved to another one."""
        lance_datasets.delete(self._uri, "path", [path])

    def condemn(self, locations: list[Location], at: datetime | None = None) -> None:
        """Take blobs off the index after recording their locations, whose bytes stay for a grace period.

        Args:
            at: beginning of that period, by the store's clock; by default now.
        """
        began = at or datetime.now(UTC)
        rows = [{**vars(location), "at": began, "struck": False} for location in locations]
        lance_datasets.append(self._condemned_uri, pa.Table.from_pylist(rows, schema=CONDEMNED))
        self.remove([location.content_hash for location in locations])

    def condemned_rows(
        self,
        hashes: Iterable[str] | None = None,
        path: str | None = None,
        before: datetime | None = None,
        struck: bool | None = None,
    ) -> pa.RecordBatchReader:
        """Stream condemned locations.

        Args:
            hashes: only those of these blobs.
            path: only those in this object.
            before: only those condemned before then.
            struck: only those that are struck, or are not.
        """
        where = _where(hashes, path, before, struck)
        return lance_datasets.reader(lance_datasets.open_dataset(self._condemned_uri), CONDEMNED, where=where)

    def strike(self, before: datetime) -> None:
        """Strike the locations that were condemned before then, so that no reader finds them."""
        dataset = lance_datasets.open_dataset(self._condemned_uri)
        if dataset is not None:
            dataset.update({"struck": "true"}, where=_where(before=before, struck=False))

    def drop_struck(self, hashes: Iterable[str]) -> None:
        """Drop the struck locations of blobs."""
        lance_datasets.delete(self._condemned_uri, "content_hash", hashes, "struck")

    def drop_condemned(self, hashes: Iterable[str] | None = None, path: str | None = None) -> None:
        """Drop the condemned locations of blobs, or those in one object."""
        if hashes is not None:
            lance_datasets.delete(self._condemned_uri, "content_hash", hashes)
        if path is not None:
            lance_datasets.delete(self._condemned_uri, "path", [path])


def _where(
    hashes: Iterable[str] | None = None,
    path: str | None = None,
    before: datetime | None = None,
    struck: bool | None = None,
) -> str | None:
    """Build a filter over the columns of `INDEX` or `CONDEMNED`; None where nothing is given."""
    parts = []
    if hashes is not None:
        chosen = sql.literals(hashes) or "NULL"
        parts.append(f"content_hash IN ({chosen})")
    if path is not None:
        parts.append(f"path = {sql.literal(path)}")
    if struck is not None:
        parts.append("struck" if struck else "NOT struck")
    if before is not None:
        parts.append(f"at < {sql.timestamp_literal(before)}")
    return " AND ".join(parts) or None
