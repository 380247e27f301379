"""The log of damaged and missing blobs."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store

DAMAGED = pa.schema([("content_hash", pa.string())])


class DamageLog:
    """Hashes of a store's damaged or missing blobs, until they are fetched again. Picklable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def _uri(self) -> str:
        return self.store.uri("blobs/damaged.lance")

    def report(self, hashes: list[str]) -> None:
        """Record damaged or missing blobs."""
        lance_datasets.append(self._uri, pa.table({"content_hash": hashes}, schema=DAMAGED))

    def hashes(self) -> set[str]:
        """Return the blobs that were reported and not fetched again since."""
        batches = lance_datasets.reader(lance_datasets.open_dataset(self._uri), DAMAGED)
        return {digest for batch in batches for digest in batch["content_hash"].to_pylist()}

    def clear(self, hashes: Iterable[str]) -> None:
        """Remove blobs that were fetched again or erased."""
        lance_datasets.delete(self._uri, "content_hash", hashes)
