"""Erasing blobs: their bytes go at once, from objects, packs, and whatever nobody knows of any more."""

from __future__ import annotations

from collections.abc import Iterable

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_resources.blobs.blob_index import INDEX, Location
from mm_resources.blobs.blob_store import PACKS, BlobStore
from mm_resources.storage import lance_datasets

_COVERED = "SELECT path, sum(size)::BIGINT AS used FROM (SELECT DISTINCT * FROM places) GROUP BY path"


def erase(blobs: BlobStore, hashes: Iterable[str]) -> int:
    """Remove blobs for good; how many places of them went. To be called while no ingest runs on the store.

    Packs with bytes that nobody knows of are written anew too, since these may be the blob's: an earlier place of it, or
    what a killed run left.
    """
    chosen, store = sorted(hashes), blobs.store
    some = ", ".join(map(sql.literal, chosen)) or "''"
    where = f"content_hash IN ({some})"
    index = lance_datasets.open_dataset(store.uri("blobs/index.lance"))
    places = [
        *lance_datasets.reader(index, INDEX, where=where).read_all().to_pylist(),
        *blobs.condemned(where).read_all().to_pylist(),
    ]
    hit = {place["path"] for place in places}
    for uri in (blobs.condemned_uri, store.uri("blobs/damaged.lance")):
        lance_datasets.delete(uri, "content_hash", chosen)
    for digest in chosen:
        blobs.drop(digest)
    for pack in _unclean(blobs, hit):
        _rewrite(blobs, pack)
    return len(places)


def _unclean(blobs: BlobStore, hit: set[str]) -> list[str]:
    """Packs that held a blob that is erased, or hold bytes of which nothing is known."""
    used = dict(zip(*sql.fetch(_COVERED, places=blobs.places()).to_pydict().values(), strict=True))
    return [
        entry.name
        for entry in blobs.store.objects(PACKS)
        if entry.name in hit or used.get(entry.name, 0) < entry.size
    ]


def _rewrite(blobs: BlobStore, pack: str) -> None:
    """Write what is known of a pack into a new one, and remove it."""
    where = f"path = {sql.literal(pack)}"
    condemned = blobs.condemned(where).read_all().to_pylist()
    # They go with the others, and are condemned again by the next collection.
    blobs.enter([Location(**{name: row[name] for name in INDEX.names}) for row in condemned])
    lance_datasets.delete(blobs.condemned_uri, "path", [pack])
    index = lance_datasets.open_dataset(blobs.store.uri("blobs/index.lance"))
    for row in lance_datasets.reader(index, INDEX, where=where).read_all().to_pylist():
        try:
            blobs.verify(Location(**row))
        except SampleError:
            blobs.report_damaged([Location(**row)])  # fetched again by the next backfill
    blobs.move(pack)
    blobs.store.remove(pack)
