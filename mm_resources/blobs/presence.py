"""Whether blobs lie where they should, told by sizes and tags, without reading them."""

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


class Presence:
    """Asks a store, or the sources of referenced blobs, once for each object."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._sizes: dict[str, int] = {}

    def troubles(self, places: pa.Table) -> list[SampleError | None]:
        """Of each place, why its blob cannot lie there; None where all looks well.

        Args:
            places: ``path`` (null: nowhere), ``offset`` and ``size``.
        """
        paths, offsets, sizes = (places[name].to_pylist() for name in ("path", "offset", "size"))
        references = [reference_of(path) if path else None for path in paths]
        asked = {path for path, reference in zip(paths, references, strict=True) if path and not reference}
        self._sizes.update(self.store.sizes(asked - self._sizes.keys()))
        with ThreadPoolExecutor(_THREADS) as pool:
            checked = pool.map(_checked, filter(None, references))
            found: list[SampleError | None] = []
            for path, offset, size, reference in zip(paths, offsets, sizes, references, strict=True):
                if reference:
                    found.append(next(checked))
                else:
                    found.append(None if self._sizes.get(path, -1) >= offset + size else _LOST)
        return found


def _checked(reference: Reference) -> SampleError | None:
    outcome: SampleError | None = call_guarded(reference.check, ())
    return outcome
