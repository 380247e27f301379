"""Ingestion as a kernel: (source URI, locator, tag) -> content hash, with the bytes in the blob store.

A re-upload is read again; what it holds is computed no further, since all else is keyed by content.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import fingerprint
from mm_embed_kernels.kernel import Kernel, Resources, Stage, guarded, results
from mm_embed_kernels.spec import DatasetSpec
from mm_resources.blobs import BlobStore
from mm_resources.sources import Source, open_source

# The key under which a listed sample's content is cached; `flavour` is what of the spec changes the bytes.
FETCH_KEY = "sha256(concat_ws(chr(31), flavour, source_uri, coalesce(locator, ''), coalesce(tag, '')))"
_THREADS = 8


class FetchKernel(Kernel):
    """Reads samples from their sources and stores the bytes as blobs."""

    name = "fetch"
    scope = "fetch"

    def __init__(self, spec: DatasetSpec, blobs: BlobStore, resources: Resources = Resources(batch_rows=256)) -> None:
        self.spec, self.blobs, self.resources = spec, blobs, resources
        self.fingerprint = fingerprint(name="fetch", code_version="1")
        self.payload = [pa.field("content_hash", pa.string()), pa.field("size", pa.int64())]
        self.seconds_per_row = 0.0005

    def stages(self) -> list[Stage]:
        return [_FetchStage(self.spec, self.blobs, self.result, self.resources)]

    def flavours(self) -> pa.Table:
        """(source, flavour) of every source of the spec."""
        opened = [(item.name, open_source(item, dict(self.spec.schema_)).flavour) for item in self.spec.sources]
        return pa.table({"source": [name for name, _ in opened], "flavour": [flavour for _, flavour in opened]})


class _FetchStage(Stage):
    def __init__(self, spec: DatasetSpec, blobs: BlobStore, schema: pa.Schema, resources: Resources) -> None:
        self.spec, self.blobs, self.schema, self.resources = spec, blobs, schema, resources
        self._sources: dict[str, Source] = {}

    def setup(self) -> None:
        self._sources = {item.name: open_source(item, dict(self.spec.schema_)) for item in self.spec.sources}

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        rows = batch.to_pylist()
        # Whole files are read side by side; records of one file in order, since they share its handle.
        if all(row["locator"] == "" for row in rows):
            with ThreadPoolExecutor(_THREADS) as pool:
                fetched = list(pool.map(lambda row: guarded(self._fetch, (row,)), rows))
        else:
            fetched = [guarded(self._fetch, (row,)) for row in rows]
        outcomes: list[Any] = list(fetched)
        small = [i for i, item in enumerate(fetched) if isinstance(item, bytes)]
        for i, digest in zip(small, self.blobs.put(fetched[i] for i in small), strict=True):
            outcomes[i] = {"content_hash": digest, "size": len(fetched[i])}
        return results([row["key"] for row in rows], outcomes, time.perf_counter() - began, self.schema)

    def _fetch(self, row: dict[str, Any]) -> bytes | dict[str, Any]:
        try:
            source, uri, locator = self._sources[row["source"]], row["source_uri"], row["locator"] or ""
            if (now := source.tag(uri, locator)) not in (None, row["tag"]):
                changed = f"{uri} was listed as {row['tag']} and is {now} now; a version stays frozen, so register a new one"
                raise SampleError("source_changed", changed, retryable=True)
            found = source.fetch(uri, locator)
            if isinstance(found, bytes):
                return found
            with found:
                digest, size = self.blobs.put_stream(found)
            return {"content_hash": digest, "size": size}
        except ConnectionError as error:
            raise SampleError("fetch_error", f"{row['source_uri']}: {error}", retryable=True) from error
