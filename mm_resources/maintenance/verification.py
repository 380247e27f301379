"""Verification: every stored blob, or a sample of them, is read and held against its hash."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox.sandbox import guarded
from mm_resources.blobs.blob_index import Location
from mm_resources.blobs.blob_store import BlobStore

_THREADS = 8
_BATCH = 1_024


@dataclass(frozen=True)
class Checked:
    """What became of some blobs.

    Attributes:
        blobs, bytes: read and found good.
        bad: (place, why) of those that are missing or damaged; they are struck off the index by now.
    """

    blobs: int
    bytes: int
    bad: list[tuple[Location, SampleError]]


def verify(blobs: BlobStore, sample: int = 0) -> Iterator[Checked]:
    """Read the store's blobs, streaming; those that are missing or damaged are struck, so that the next backfill of a cell
    that references them fetches them again.

    Args:
        sample: how many blobs, chosen at random; 0: all.

    Raises:
        SampleError: ``store_error``, when the store itself cannot be read.
    """
    rows = blobs.sample(sample) if sample else blobs.index()
    for batch in rows:
        table = pa.Table.from_batches([batch])
        for start in range(0, table.num_rows, _BATCH):
            yield _checked(blobs, [Location(**row) for row in table.slice(start, _BATCH).to_pylist()])


def _checked(blobs: BlobStore, places: list[Location]) -> Checked:
    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = list(pool.map(lambda place: guarded(blobs.verify, (place,)), places))
    bad = [
        (place, outcome)
        for place, outcome in zip(places, outcomes, strict=True)
        if isinstance(outcome, SampleError)
    ]
    for _, error in bad:
        if error.error_class not in ("blob_missing", "blob_damaged"):
            raise error
    blobs.report_damaged([place for place, _ in bad])
    lost = {place for place, _ in bad}
    good = [place for place in places if place not in lost]
    return Checked(len(good), sum(place.size for place in good), bad)
