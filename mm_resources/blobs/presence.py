"""Check that blobs exist, by size and ETag, without reading them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_resources.blobs.references import Reference, reference_of
from mm_resources.storage.store import Store

_THREADS = 16
_LOST = SampleError(
    "blob_missing", "the blob is not in the store, and its source no longer gives these bytes", retryable=True
)


class PresenceCheck:
    """Checks the blobs of a store; each object of the store is looked up once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._sizes: dict[str, int] = {}

    def errors(self, locations: pa.Table) -> list[SampleError | None]:
        """Return the error of each location whose blob cannot lie there; None for the others.

        Args:
            locations: ``path`` (null: nowhere), ``offset`` and ``size``.
        """
        paths, offsets, sizes = (locations[name].to_pylist() for name in ("path", "offset", "size"))
        references = [reference_of(path) if path else None for path in paths]
        stored = {path for path, reference in zip(paths, references, strict=True) if path and not reference}
        self._sizes.update(self.store.sizes(stored - self._sizes.keys()))
        with ThreadPoolExecutor(_THREADS) as pool:
            of_references = pool.map(_reference_error, filter(None, references))
            errors: list[SampleError | None] = []
            for path, offset, size, reference in zip(paths, offsets, sizes, references, strict=True):
                if reference:
                    errors.append(next(of_references))
                else:
                    errors.append(None if self._sizes.get(path, -1) >= offset + size else _LOST)
        return errors


def _reference_error(reference: Reference) -> SampleError | None:
    outcome: SampleError | None = call_guarded(reference.check, ())
    return outcome
