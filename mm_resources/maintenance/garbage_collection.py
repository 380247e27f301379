"""Garbage collection: removes the bytes that nothing references, and never any that something does, beside running ingests.

A blob is referenced while any version of a cell's `raw_assets` or `content_blobs` that still exists names it (superseded
ones go with `mm upkeep`, pinned ones stay), and while a row of the fetch cache younger than the grace period does (a run
that has fetched and not yet published). The grace period is longer than any run.

Bytes go in two steps, at least one grace period apart. What is unreferenced, and was written before the grace period, is
*condemned*: struck off the index, so that nobody stores anything by pointing at it any more, while its bytes stay. An
ingest that had looked at the index before still takes it for stored, finds it among the condemned (`BlobStore.places`) and
ends within the grace period. A later collection *strikes* what has been condemned for a grace period, so that nobody finds
it any more, and only then looks for references: whoever named it by then is seen, and the blob goes back on the index;
whoever names it later finds no such blob and fetches it anew.

Objects and packs in which neither index nor condemned blobs lie, since their writer died or the blobs are gone, are
removed when they are older than the grace period. A pack is never written twice; a writer of a large blob that finds an
old object under its name leaves it alone (`BlobStore`), so that what is removed here is never what somebody is about to
index. Packs that are mostly garbage are written anew; readers find what has moved by the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_resources.blobs.blob_index import INDEX, Location
from mm_resources.blobs.blob_store import PACKS
from mm_resources.catalog import Catalog
from mm_resources.storage import lance_datasets
from mm_resources.storage.hash_set import HashSet
from mm_resources.storage.store import INCOMING, Store

GRACE = timedelta(days=7)
# Of a pack's bytes, the share that must be in use for it to be left as it is.
_USED = 0.5
_PARTS = (PACKS, "blobs/sha256")
_USES = "SELECT path, sum(size)::BIGINT AS used FROM stored WHERE starts_with(path, $packs) GROUP BY path"


@dataclass
class Collected:
    """What garbage collection did or, as a dry run, would do.

    Attributes:
        referenced: distinct blobs that something references.
        condemned: blobs struck off the index; their bytes go in a later collection.
        restored: condemned blobs that are referenced after all.
        removed: condemned blobs that are gone for good.
        objects, bytes: objects and packs removed, and their size.
        rewritten: packs that were mostly garbage.
    """

    referenced: int = 0
    condemned: int = 0
    restored: int = 0
    removed: int = 0
    objects: int = 0
    bytes: int = 0
    rewritten: int = 0


def collect(catalog: Catalog, grace: timedelta = GRACE, dry_run: bool = False) -> Collected:
    """Collect garbage; see the module's docstring for why it is safe beside running ingests.

    Args:
        grace: longer than any run; what is younger is left alone.
        dry_run: only count.
    """
    work = _Collection(catalog, datetime.now(UTC) - grace, dry_run)
    work.strike()
    work.mark(references(catalog.store, work.before))
    work.sweep()
    work.condemn()
    work.rewrite()
    work.remove_strays()
    return work.done


def references(store: Store, since: datetime) -> HashSet:
    """All content hashes that a stage's table names, in any version, or that were fetched after `since`."""

    def hashes() -> Iterator[Iterable[bytes]]:
        for stage in ("raw_assets", "content_blobs"):
            for name in store.tables(f"stages/{stage}"):
                current = lance_datasets.open_dataset(store.uri(name))
                for version in [] if current is None else current.versions():
                    yield from _hashes(store.uri(name), "content_hash IS NOT NULL", int(version["version"]))
        for name in store.tables("cache/fetch"):
            yield from _hashes(store.uri(name), f"content_hash IS NOT NULL AND at >= {_moment(since)}")

    return HashSet(hashes())


def _hashes(uri: str, where: str, version: int | None = None) -> Iterator[list[bytes]]:
    schema = pa.schema([("content_hash", pa.string())])
    dataset = lance_datasets.open_dataset(uri, version)
    if dataset is not None and "content_hash" not in dataset.schema.names:
        return  # an empty table before its first publish
    for batch in lance_datasets.reader(dataset, schema, ["content_hash"], where):
        yield [bytes.fromhex(value) for value in batch["content_hash"].to_pylist()]


def _moment(at: datetime) -> str:
    """A time as SQL."""
    return f"timestamp '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


class _Collection:
    """The steps of one collection, in the order in which `collect` takes them."""

    def __init__(self, catalog: Catalog, before: datetime, dry_run: bool) -> None:
        self.store, self.blobs, self.before, self.dry_run = catalog.store, catalog.blobs, before, dry_run
        self.done = Collected()
        self.referenced = HashSet()
        self._written: dict[str, datetime] = {}

    def strike(self) -> None:
        """From here on, nobody finds what has been condemned for a grace period."""
        condemned = lance_datasets.open_dataset(self.blobs.condemned_uri)
        if condemned is not None and not self.dry_run:
            condemned.update({"struck": "true"}, where=f"NOT struck AND at < {_moment(self.before)}")

    def mark(self, referenced: HashSet) -> None:
        self.referenced = referenced
        self.done.referenced = len(referenced)

    def sweep(self) -> None:
        """Put back what is referenced after all, and forget what is struck."""
        due = f"at < {_moment(self.before)}" if self.dry_run else "struck"
        for rows in _locations(self.blobs.condemned(due)):
            back = [row for row in rows if self._is_referenced(row)]
            self.done.restored += len(back)
            self.done.removed += len(rows) - len(back)
            if not self.dry_run:
                self.blobs.enter(back)
                lance_datasets.delete(
                    self.blobs.condemned_uri, "content_hash", [row.content_hash for row in rows], "struck"
                )

    def condemn(self) -> None:
        """Strike unreferenced blobs off the index. Their places are written down before, so that a kill loses none."""
        for rows in _locations(self.blobs.index()):
            rows = [row for row in rows if not self._is_referenced(row) and self._is_old(row.path)]
            self.done.condemned += len(rows)
            if rows and not self.dry_run:
                self.blobs.condemn(rows)

    def rewrite(self) -> None:
        """Write what is used of packs that are mostly garbage into new ones."""
        waiting = set(self.blobs.condemned().read_all()["path"].to_pylist())
        packs = sql.fetch(_USES.replace("$packs", sql.literal(PACKS)), stored=self.blobs.index()).to_pylist()
        for pack in packs:
            found = None if pack["path"] in waiting else self.store.entry(pack["path"])
            if found is None or found.modified >= self.before or pack["used"] >= _USED * found.size:
                continue
            self.done.rewritten += 1
            if not self.dry_run:
                with suppress(
                    SampleError
                ):  # a pack with a damaged blob stays as it is; `mm doctor --verify` names it
                    self.blobs.move(pack["path"])

    def remove_strays(self) -> None:
        """Remove old objects and packs in which nothing lies that anyone knows of."""
        known = HashSet(
            [_short(path) for path in set(batch["path"].to_pylist())]
            for reader in (self.blobs.index(["path"]), self.blobs.condemned())
            for batch in reader
        )
        for part in _PARTS:
            for entry in self.store.objects(part):
                if (
                    entry.modified >= self.before
                    or _short(entry.name) in known
                    or entry.name.startswith(INCOMING)
                ):
                    continue
                self.done.objects += 1
                self.done.bytes += entry.size
                if not self.dry_run:
                    self.store.remove(entry.name)

    def _is_referenced(self, row: Location) -> bool:
        return bytes.fromhex(row.content_hash) in self.referenced

    def _is_old(self, path: str) -> bool:
        if path not in self._written:
            found = self.store.entry(path)
            # What is not there is no garbage but a loss, which `content_blobs` names.
            self._written[path] = datetime.max.replace(tzinfo=UTC) if found is None else found.modified
        return self._written[path] < self.before


def _short(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def _locations(reader: pa.RecordBatchReader) -> Iterator[list[Location]]:
    for batch in reader:
        yield [Location(**{name: row[name] for name in INDEX.names}) for row in batch.to_pylist()]
