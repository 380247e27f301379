"""Garbage collection: remove the bytes of unreferenced blobs, safely beside running ingests.

A blob is referenced while any existing version of a cell's `raw_assets` or `content_blobs` names it (`mm
upkeep` removes superseded versions, pinned ones stay), or a row of the fetch cache younger than the grace
period does (of a run that has fetched and not yet published). The grace period is longer than any run.

Bytes are removed in two steps, at least one grace period apart. An unreferenced blob that was written before
the grace period is *condemned*: it leaves the index, so that no later ingest refers to it, while its bytes
stay. An ingest that read the index earlier still takes it for stored, finds it among the condemned blobs
(`BlobIndex.referable_rows`) and ends within the grace period. A later collection *strikes* the blobs that
have been condemned for a grace period, so that no reader finds them, and only then collects the references: a
blob that is referenced by then returns to the index; a later ingest finds no such blob and fetches it again.

Struck: removed from the index; condemned: unreferenced, kept for the grace period.

Objects and packs without an indexed or condemned blob, since their writer died or the blobs are gone, are
removed when they are older than the grace period. A pack is never written twice; a writer of a large blob
that finds an old object under its name leaves it alone (`BlobStore`), so a removed object is never one that
is about to be indexed. Packs that are mostly garbage are rewritten; readers find the moved blobs through the
index.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.blobs.blob_index import Location, locations_of
from mm_resources.blobs.blob_store import LARGE, PACKS
from mm_resources.catalog import Catalog
from mm_resources.lineages.fragments import distinct_fragments
from mm_resources.registry.damaged_files import describe_damage
from mm_resources.storage import lance_datasets
from mm_resources.storage.hash_set import HashSet, text_digest
from mm_resources.storage.store import INCOMING, Store
from mm_resources.storage.table_files import require_intact

if TYPE_CHECKING:
    import lance

GRACE = timedelta(days=7)
# Packs with a smaller share of their bytes in use are rewritten.
_USED = 0.5
_PARTS = (PACKS, LARGE)
_USES = f"""
SELECT path, sum(size)::BIGINT AS used FROM stored WHERE starts_with(path, {sql.literal(PACKS)}) GROUP BY path
"""


@dataclass
class CollectionResult:
    """Counts of a garbage collection; of a dry run, the counts that it would have.

    Attributes:
        referenced: distinct blobs with a reference.
        condemned: blobs that left the index; a later collection removes their bytes.
        restored: condemned blobs that returned to the index, since they are referenced.
        removed: condemned blobs that were removed for good.
        objects: objects and packs that were removed.
        bytes: their size.
        rewritten: packs that were rewritten, since they were mostly garbage.
    """

    referenced: int = 0
    condemned: int = 0
    restored: int = 0
    removed: int = 0
    objects: int = 0
    bytes: int = 0
    rewritten: int = 0


def collect(catalog: Catalog, grace: timedelta = GRACE, dry_run: bool = False) -> CollectionResult:
    """Collect garbage; the module's docstring says why this is safe beside running ingests.

    Args:
        grace: grace period, longer than any run; younger objects stay.
        dry_run: whether to count only.

    Raises:
        UserError: when a file of the registry or a table that names references is damaged: what they name is
            unknown, so that nothing is condemned; and while a forgetting is incomplete, whose bytes a
            rewritten pack could keep.
    """
    catalog.receipts.require_done()
    if problems := describe_damage(catalog.registry, fresh=False):
        raise UserError(f"nothing is collected while a file of the registry cannot be read: {problems[0]}")
    # With the clock of a machine ahead of the store's, young objects would be old.
    now = datetime.now(UTC) if dry_run else _time_of(catalog.store)
    work = _Collection(catalog, now, grace, dry_run)
    work.strike()
    work.mark(references(catalog.store, work.before))
    work.sweep()
    work.condemn()
    work.rewrite()
    work.remove_strays()
    return work.done


def _time_of(store: Store) -> datetime:
    """Return the time by the clock that gives the objects of a store their times."""
    name = f"{INCOMING}/clock-{uuid.uuid4().hex}"
    store.write(name, b"", sync=False)
    entry = store.entry(name)
    store.remove(name)
    return datetime.now(UTC) if entry is None else entry.modified


def references(store: Store, since: datetime) -> HashSet:
    """Return the content hashes that a version of a stage names, or that were fetched after `since`."""

    def hashes() -> Iterator[Iterable[bytes]]:
        for stage in ("raw_assets", "content_blobs"):
            for name in store.tables(f"stages/{stage}"):
                # The versions of a table share fragments: each is read once, with its rows of that version.
                for dataset, fragments in distinct_fragments(store.uri(name), with_deletions=True):
                    yield from _hashes_of(dataset, name, fragments)
        for name in store.tables("cache/fetch"):
            yield from _hashes(
                store.uri(name), f"content_hash IS NOT NULL AND at >= {sql.timestamp_literal(since)}"
            )

    return HashSet(hashes())


def _hashes_of(
    dataset: lance.LanceDataset, name: str, fragments: list[lance.LanceFragment]
) -> Iterator[list[bytes]]:
    """Yield the content hashes of fragments of a version."""
    if "content_hash" not in dataset.schema.names:
        return  # a table without rows, before its first publish
    # Upkeep may remove a superseded version meanwhile: what is missing is found by reading it.
    require_intact(dataset, name, causes=("damaged",))
    scan = dataset.scanner(columns=["content_hash"], filter="content_hash IS NOT NULL", fragments=fragments)
    for batch in scan.to_reader():
        yield [bytes.fromhex(value) for value in batch["content_hash"].to_pylist()]


def _hashes(uri: str, where: str) -> Iterator[list[bytes]]:
    schema = pa.schema([("content_hash", pa.string())])
    dataset = lance_datasets.open_dataset(uri)
    if dataset is not None:
        require_intact(dataset, uri, causes=("damaged",))
    for batch in lance_datasets.reader(dataset, schema, ["content_hash"], where):
        yield [bytes.fromhex(value) for value in batch["content_hash"].to_pylist()]


class _Collection:
    """The steps of one collection, in the order of `collect`."""

    def __init__(self, catalog: Catalog, now: datetime, grace: timedelta, dry_run: bool) -> None:
        self.store, self.blobs, self.dry_run = catalog.store, catalog.blobs, dry_run
        self.now, self.before = now, now - grace
        self.index = self.blobs.index
        self.done = CollectionResult()
        self.referenced = HashSet()
        self._written: dict[str, datetime] = {}

    def strike(self) -> None:
        """Strike the blobs that have been condemned for a grace period, so that no reader finds them."""
        if not self.dry_run:
            self.index.strike(self.before)

    def mark(self, referenced: HashSet) -> None:
        """Set the hashes of all referenced blobs."""
        self.referenced = referenced
        self.done.referenced = len(referenced)

    def sweep(self) -> None:
        """Return referenced blobs to the index, and drop the other struck ones."""
        due = (
            self.index.condemned_rows(before=self.before)
            if self.dry_run
            else self.index.condemned_rows(struck=True)
        )
        for rows in map(locations_of, due):
            restored = [row for row in rows if self._is_referenced(row)]
            self.done.restored += len(restored)
            self.done.removed += len(rows) - len(restored)
            if not self.dry_run:
                self.index.restore(restored)
                self.index.drop_struck(row.content_hash for row in rows)

    def condemn(self) -> None:
        """Take old unreferenced blobs off the index, after recording their locations: a kill loses none."""
        for rows in map(locations_of, self.index.rows()):
            rows = [row for row in rows if not self._is_referenced(row) and self._is_old(row.path)]
            self.done.condemned += len(rows)
            if rows and not self.dry_run:
                self.index.condemn(rows, self.now)

    def rewrite(self) -> None:
        """Move the blobs of packs that are mostly garbage into new packs."""
        waiting = set(self.index.condemned_rows().read_all()["path"].to_pylist())
        packs = sql.fetch(_USES, stored=self.index.rows()).to_pylist()
        for pack in packs:
            entry = None if pack["path"] in waiting else self.store.entry(pack["path"])
            if entry is None or entry.modified >= self.before or pack["used"] >= _USED * entry.size:
                continue
            self.done.rewritten += 1
            if not self.dry_run:
                # A pack with a damaged blob stays; `mm doctor --verify` reports it.
                with suppress(SampleError):
                    self.blobs.rewrite_pack(pack["path"])

    def remove_strays(self) -> None:
        """Remove old objects and packs without an indexed or condemned blob."""
        known = HashSet(
            [text_digest(path) for path in set(batch["path"].to_pylist())]
            for reader in (self.index.rows(["path"]), self.index.condemned_rows())
            for batch in reader
        )
        for part in _PARTS:
            for entry in self.store.objects(part):
                if (
                    entry.modified >= self.before
                    or text_digest(entry.name) in known
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
            entry = self.store.entry(path)
            # A missing object is no garbage but a loss, which `content_blobs` reports.
            self._written[path] = datetime.max.replace(tzinfo=UTC) if entry is None else entry.modified
        return self._written[path] < self.before
