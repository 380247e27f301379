"""Ingestion as a kernel: (source URI, locator, tag) -> content hash, with the bytes in the blob store.

A re-upload is read again; what it holds is computed no further, since all else is keyed by content.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import canonical_json, content_hash, digest, fingerprint
from mm_embed_kernels.kernels.base import Kernel, Resources, Stage, results
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.blobs.blob_store import PACK_BYTES, BlobStore
from mm_resources.blobs.forgotten import Receipts, forgotten_error
from mm_resources.blobs.large_blobs import copy_stream
from mm_resources.blobs.references import Reference
from mm_resources.metering import count
from mm_resources.sources import Source, open_source
from mm_resources.storage.filesystems import client_errors
from mm_resources.storage.store import LARGE_BYTES

# The key under which a listed sample's content is cached; `flavour` is what of the spec changes the bytes.
FETCH_KEY = "sha256(concat_ws(chr(31), flavour, source_uri, coalesce(locator, ''), coalesce(tag, '')))"
# Places in one file come one after the other, since a compressed file, an archive or a group of rows is read forward.
_IN_PLACES = "source, source_uri, TRY_CAST(regexp_extract(locator, '^[0-9]+') AS BIGINT), key"
# What a sample counts for whose size nobody knows before it is read.
_UNKNOWN_BYTES = 1 << 20
# Records of a file are small and come fast; their packs and the commits of the index should not be.
_WHOLE_ROWS, _RECORD_ROWS = 1_024, 8_192


class FetchKernel(Kernel):
    """Reads samples from their sources and stores the bytes as blobs."""

    name = "fetch"
    scope = "fetch"
    order = _IN_PLACES

    def __init__(self, spec: DatasetSpec, blobs: BlobStore, resources: Resources | None = None) -> None:
        records = all(source.record is not None and source.record.text is not None for source in spec.sources)
        self.spec, self.blobs = spec, blobs
        self.resources = resources or Resources(batch_rows=_RECORD_ROWS if records else _WHOLE_ROWS)
        self.fingerprint = fingerprint(name="fetch", code_version="1")
        # Files of this machine are read by this machine, wherever the rest is computed.
        self.driver_only = any(is_here(source) for source in spec.sources)
        self.payload = [pa.field("content_hash", pa.string()), pa.field("size", pa.int64())]
        self.seconds_per_row = 0.0005

    @property
    def environment(self) -> str:
        """With other limits, or other addresses allowed, what failed for good may pass."""
        limits = sorted(
            {
                canonical_json(source.fetch.model_dump(mode="json"))
                for source in self.spec.sources
                if source.fetch != FetchPolicy()
            }
        )
        return digest("fetching", super().environment, *limits)[:16] if limits else super().environment

    def stages(self) -> list[Stage]:
        return [_FetchStage(self.spec, self.blobs, self.result, self.resources)]

    def flavours(self) -> pa.Table:
        """(source, flavour) of every source of the spec."""
        opened = [
            (item.name, _flavour(item, open_source(item, dict(self.spec.schema_))))
            for item in self.spec.sources
        ]
        return pa.table(
            {"source": [name for name, _ in opened], "flavour": [flavour for _, flavour in opened]}
        )


class _FetchStage(Stage):
    def __init__(self, spec: DatasetSpec, blobs: BlobStore, schema: pa.Schema, resources: Resources) -> None:
        self.spec, self.blobs, self.schema, self.resources = spec, blobs, schema, resources
        self._sources: dict[str, Source] = {}
        self._tombstones: dict[str, str] = {}

    def setup(self) -> None:
        self._tombstones = Receipts(self.blobs.store).tombstones()
        self._sources = {item.name: open_source(item, dict(self.spec.schema_)) for item in self.spec.sources}

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        rows = batch.to_pylist()
        outcomes: list[Any] = []
        for part in _parts(rows):
            outcomes += self._store(part)
        here = {name: is_here(source.spec) for name, source in self._sources.items()}
        sizes = [
            (outcome["size"], here[row["source"]])
            for row, outcome in zip(rows, outcomes, strict=True)
            if isinstance(outcome, dict)
        ]
        count(
            bytes_read=sum(size for size, _ in sizes),
            bytes_transferred=sum(size for size, local in sizes if not local),
        )
        return results([row["key"] for row in rows], outcomes, time.perf_counter() - began, self.schema)

    def _store(self, rows: list[dict[str, Any]]) -> list[Any]:
        """Fetch a part of a batch and put what is small into packs."""
        # Whole objects are read side by side; records of one file in order, since they share its handle.
        if all(self._sources[row["source"]].single_object for row in rows):
            threads = max(source.spec.fetch.concurrency for source in self._sources.values())
            with ThreadPoolExecutor(threads) as pool:
                fetched = list(pool.map(lambda row: call_guarded(self._fetch, (row,)), rows))
        else:
            fetched = [call_guarded(self._fetch, (row,)) for row in rows]
        fetched = (
            [self._allowed(item) for item in self._unchanged(rows, fetched)]
            if self._tombstones
            else self._unchanged(rows, fetched)
        )
        outcomes: list[Any] = list(fetched)
        small = [i for i, item in enumerate(fetched) if isinstance(item, bytes)]
        for i, content in zip(small, self.blobs.put(fetched[i] for i in small), strict=True):
            outcomes[i] = {"content_hash": content, "size": len(fetched[i])}
        return outcomes

    def _allowed(self, fetched: Any) -> Any:
        """What was fetched, or the failure that it was forgotten; a large one has been stored before its hash was known."""
        if isinstance(fetched, SampleError):
            return fetched
        digest = content_hash(fetched) if isinstance(fetched, bytes) else fetched["content_hash"]
        if digest not in self._tombstones:
            return fetched
        if not isinstance(fetched, bytes):
            self.blobs.remove_large(digest)
        return forgotten_error(digest, self._tombstones[digest])

    def _unchanged(self, rows: list[dict[str, Any]], fetched: list[Any]) -> list[Any]:
        """What was fetched, or the failure that its object is no longer what was listed.

        Looked at after the reading, so that a change in the midst of it is seen too; once for each object.
        """
        tags: dict[tuple[str, str, str], str | None] = {}
        outcomes = []
        for row, outcome in zip(rows, fetched, strict=True):
            source = self._sources[row["source"]]
            place = (row["source"], row["source_uri"], (row["locator"] or "") if source.single_object else "")
            if not isinstance(outcome, SampleError) and place not in tags:
                tags[place] = source.tag(row["source_uri"], row["locator"] or "")
            now = tags.get(place)
            # What could not be told when it was listed tells nothing now.
            if row["tag"] and not isinstance(outcome, SampleError) and now not in (None, row["tag"]):
                changed = f"{row['source_uri']} was listed as {row['tag']} and is {now} now; a version stays frozen, so register a new one"
                outcome = SampleError("source_changed", changed, retryable=True)
            outcomes.append(outcome)
        return outcomes

    def _fetch(self, row: dict[str, Any]) -> bytes | dict[str, Any]:
        if self._sources[row["source"]].spec.blobs == "reference":
            return _hashed(row)
        try:
            found = self._sources[row["source"]].fetch(row["source_uri"], row["locator"] or "")
            if isinstance(found, bytes):
                return found
        except ConnectionError as error:
            raise SampleError("fetch_error", f"{row['source_uri']}: {error}", retryable=True) from error
        try:
            with found:
                digest, size = self.blobs.put_stream(cast(BinaryIO, _Reading(found, row["source_uri"])))
        except OSError as error:
            raise SampleError(
                "store_error", f"{row['source_uri']}: {type(error).__name__}: {error}", retryable=True
            ) from error
        return {"content_hash": digest, "size": size}


def is_here(source: SourceSpec) -> bool:
    """Whether a source lies on this machine; lists that do so may name what lies elsewhere."""
    return "://" not in source.uri or source.uri.startswith("file://")


def _flavour(spec: SourceSpec, source: Source) -> str:
    # What was hashed where it lies was not stored, and is to be fetched where it shall be.
    return f"{source.flavour}|reference" if spec.blobs == "reference" else source.flavour


def _hashed(row: dict[str, Any]) -> dict[str, Any]:
    """The hash of an object that stays where it is."""
    if row["locator"] or not row["tag"]:
        what = (
            "is no whole object with a name in UTF-8"
            if row["locator"]
            else "comes from a source that tells no change"
        )
        raise SampleError("not_referable", f"{row['source_uri']} {what}: copy it (blobs: copy)")
    with Reference(row["source_uri"], row["tag"]).open() as stream:
        digest, size = copy_stream(cast(BinaryIO, _Reading(stream, row["source_uri"])))
    return {"content_hash": digest, "size": size}


class _Reading:
    """A source's stream, whose faults are told from the store's."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self.stream, self.uri = stream, uri

    def read(self, size: int = -1) -> bytes:
        try:
            with client_errors(self.uri):
                return self.stream.read(size)
        except OSError as error:
            raise SampleError(
                "fetch_error", f"{self.uri}: {type(error).__name__}: {error}", retryable=True
            ) from error

    def seek(self, offset: int) -> int:
        return self.stream.seek(offset)

    def fileno(self) -> int:
        return self.stream.fileno()


def _parts(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in parts whose listed sizes fill one pack: as much as lies in memory at once."""
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += min(_UNKNOWN_BYTES if row["size"] is None else row["size"], LARGE_BYTES)
        if size >= PACK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


REQUESTS = f"""
SELECT {FETCH_KEY} AS key, sample_id, source, source_uri, locator, tag, size
FROM listing JOIN flavours USING (source) WHERE error_class IS NULL
"""
