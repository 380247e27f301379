"""Verification: read every stored blob, or a sample of them, and compare it with its hash."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_resources.blobs.blob_index import Location, locations_of
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.large_blobs import is_lost

_THREADS = 8
_BATCH = 1_024


@dataclass(frozen=True)
class VerifiedBatch:
    """Result of verifying a batch of blobs.

    Attributes:
        blobs: number of intact blobs.
        bytes: their size.
        bad: location and error of the missing and damaged blobs, which are no longer in the index.
    """

    blobs: int
    bytes: int
    bad: list[tuple[Location, SampleError]]


def verify(blobs: BlobStore, sample: int = 0) -> Iterator[VerifiedBatch]:
    """Read the store's blobs, and yield the result of each batch.

    Missing and damaged blobs are removed from the index, so that the next backfill of a cell that references
    them fetches them again.

    Args:
        sample: number of random blobs to read; 0: all.

    Raises:
        SampleError: ``store_error``, when the store itself cannot be read.
    """
    rows = blobs.index.sample_rows(sample) if sample else blobs.index.rows()
    for batch in rows:
        table = pa.Table.from_batches([batch])
        for start in range(0, table.num_rows, _BATCH):
            yield _verify_batch(blobs, locations_of(table.slice(start, _BATCH)))


def _verify_batch(blobs: BlobStore, locations: list[Location]) -> VerifiedBatch:
    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = list(pool.map(lambda location: call_guarded(blobs.verify, (location,)), locations))
    # A blob that has moved to another pack since the index was read is not lost.
    bad = [
        (location, outcome)
        for location, outcome in zip(locations, outcomes, strict=True)
        if isinstance(outcome, SampleError) and location in blobs.index.locations(location.content_hash)
    ]
    for _, error in bad:
        if not is_lost(error):
            raise error
    lost = {location for location, _ in bad}
    blobs.report_damaged([location for location, _ in bad])
    good = [location for location in locations if location not in lost]
    return VerifiedBatch(len(good), sum(location.size for location in good), bad)
