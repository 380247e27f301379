"""Erasure of blobs: their bytes are removed at once, from objects, packs and unindexed leftovers."""

from __future__ import annotations

from collections.abc import Iterable

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_resources.blobs.blob_index import locations_of
from mm_resources.blobs.blob_store import PACKS, BlobStore
from mm_resources.blobs.large_blobs import is_lost

_COVERED = "SELECT path, sum(size)::BIGINT AS used FROM (SELECT DISTINCT * FROM locations) GROUP BY path"


def erase(blobs: BlobStore, hashes: Iterable[str]) -> int:
    """Remove blobs for good, while no ingest runs on the store; return the number of removed locations.

    All other blobs stay readable at each moment, also by readers that know their old locations.

    Packs with unindexed bytes are rewritten too, since these may belong to the blob: an earlier location of
    it, or the leftovers of a killed run.
    """
    chosen, index = sorted(hashes), blobs.index
    locations = [
        *locations_of(index.rows(hashes=chosen).read_all()),
        *locations_of(index.condemned_rows(hashes=chosen).read_all()),
    ]
    paths = {location.path for location in locations}
    index.drop_condemned(chosen)
    blobs.damage.clear(chosen)
    for digest in chosen:
        blobs.remove_large(digest)
    for pack in _packs_to_rewrite(blobs, paths):
        _rewrite(blobs, pack, chosen)
    return len(locations)


def _packs_to_rewrite(blobs: BlobStore, paths: set[str]) -> list[str]:
    """Return the packs among `paths`, and all packs with unindexed bytes."""
    used = dict(
        zip(*sql.fetch(_COVERED, locations=blobs.index.referable_rows()).to_pydict().values(), strict=True)
    )
    return [
        entry.name
        for entry in blobs.store.objects(PACKS)
        if entry.name in paths or used.get(entry.name, 0) < entry.size
    ]


def _rewrite(blobs: BlobStore, pack: str, erased: list[str]) -> None:
    """Move the indexed blobs of a pack into a new one, and remove it.

    Raises:
        SampleError: ``store_error``, when the store cannot be read; then nothing of the pack is removed.
    """
    index = blobs.index
    # Condemned blobs move with the others; the next collection condemns them again.
    index.restore(locations_of(index.condemned_rows(path=pack).read_all()))
    index.drop_condemned(path=pack)
    for location in locations_of(index.rows(path=pack).read_all()):
        try:
            blobs.verify(location)
        except SampleError as error:
            if not is_lost(error):
                raise
            blobs.report_damaged([location])  # the next backfill fetches it again
    blobs.rewrite_pack(pack)
    blobs.remove_pack(pack, erased)
