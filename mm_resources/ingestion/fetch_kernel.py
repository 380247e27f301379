"""Ingestion as a kernel: (source URI, locator, tag) -> content hash, with the bytes in the blob store.

An object that is uploaded again is read again; equal content is not computed again, since all other caches
are keyed by content. A sample inside an object whose content the listing has hashed is known by that hash
wherever it moves in the object, and its bytes are compared with it when they are read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import canonical_json, content_hash, digest, fingerprint
from mm_embed_kernels.kernels.base import Kernel, Resources, Stage, results
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import find_secrets, redact_text
from mm_resources.blobs.blob_store import PACK_BYTES, BlobStore
from mm_resources.blobs.large_blobs import copy_stream
from mm_resources.blobs.receipts import forgotten_error
from mm_resources.blobs.references import Reference
from mm_resources.ingestion.listing_rows import bound_tag
from mm_resources.ingestion.spec_secrets import open_revealed
from mm_resources.metering import count
from mm_resources.sources import Source, open_source
from mm_resources.sources.files import Files
from mm_resources.storage.filesystems import client_errors, is_local
from mm_resources.storage.secret_table import SecretTable, split_locator
from mm_resources.storage.store import LARGE_BYTES

# The cache key of a listed sample's content; `flavour` is the part of the spec that changes the bytes.
FETCH_KEY = (
    "CASE WHEN content_hash IS NULL"
    " THEN sha256(concat_ws(chr(31), flavour, source_uri, coalesce(locator, ''), coalesce(tag, '')))"
    " ELSE sha256(concat_ws(chr(31), 'content', flavour, source_uri, content_hash)) END"
)
REQUESTS = f"""
SELECT {FETCH_KEY} AS key, sample_id, source, source_uri, locator, tag, size, content_hash
FROM listing JOIN flavours USING (source) WHERE error_class IS NULL
"""
# Samples in one file follow each other, since a compressed file, an archive or a group of rows is read
# forward.
_BY_LOCATOR = "source, source_uri, TRY_CAST(regexp_extract(locator, '^[0-9]+') AS BIGINT), key"
# Assumed bytes of a sample whose size is unknown before it is read.
_UNKNOWN_BYTES = 1 << 20
# Records of a file are small and many: larger batches keep their packs large and the commits of the index
# few.
_OBJECT_ROWS, _RECORD_ROWS = 1_024, 8_192


class FetchKernel(Kernel):
    """Reads samples from their sources and stores the bytes as blobs."""

    name = "fetch"
    scope = "fetch"
    order = _BY_LOCATOR
    # A server that takes long today may answer at any later time.
    suspected = Kernel.suspected - {"timeout"}

    def __init__(self, spec: DatasetSpec, blobs: BlobStore, resources: Resources | None = None) -> None:
        records = all(source.record is not None and source.record.text is not None for source in spec.sources)
        self.spec, self.blobs = spec, blobs
        self.resources = resources or Resources(batch_rows=_RECORD_ROWS if records else _OBJECT_ROWS)
        self.fingerprint = fingerprint(name="fetch", code_version="1")
        # Local files are read by this machine, wherever the rest is computed.
        self.driver_only = any(is_local_source(source) for source in spec.sources)
        self.payload = [pa.field("content_hash", pa.string()), pa.field("size", pa.int64())]
        self.seconds_per_row = 0.0005

    @property
    def environment(self) -> str:
        """Digest of libraries, limits and allowed addresses: with others, a permanent failure may pass."""
        limits = sorted(
            {
                canonical_json(source.fetch.stored_fields)
                for source in self.spec.sources
                if source.fetch != FetchPolicy()
            }
        )
        return digest("fetching", super().environment, *limits)[:16] if limits else super().environment

    def stages(self) -> list[Stage]:
        return [_FetchStage(self.spec, self.blobs, self.result, self.resources)]

    def flavours(self) -> pa.Table:
        """Return the table (source, flavour) of the spec's sources."""
        sources = self.spec.sources
        flavours = [_flavour(item, open_source(item, dict(self.spec.schema_))) for item in sources]
        return pa.table({"source": [item.name for item in sources], "flavour": flavours})


class _FetchStage(Stage):
    def __init__(self, spec: DatasetSpec, blobs: BlobStore, schema: pa.Schema, resources: Resources) -> None:
        self.spec, self.blobs, self.schema, self.resources = spec, blobs, schema, resources
        self._sources: dict[str, Source] = {}
        self._unresolved: dict[str, SampleError] = {}
        self._tombstones: dict[str, str] = {}

    def setup(self) -> None:
        self._tombstones = self.blobs.receipts.tombstones()
        self._secrets = SecretTable(self.blobs.store)
        for item in self.spec.sources:
            try:
                self._sources[item.name] = open_revealed(self.spec, item, self._secrets)
            except UserError as error:
                # The samples of this source alone fail, until what it names can be resolved.
                self._unresolved[item.name] = SampleError("fetch_error", str(error), retryable=True)
                self._sources[item.name] = open_source(item, dict(self.spec.schema_))

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        rows = self._reveal(batch.to_pylist())
        outcomes: list[Any] = []
        for part in _split_into_packs(rows):
            outcomes += self._fetch_part(part)
        at_hand = {name: is_local_source(source.spec) for name, source in self._sources.items()}
        sizes = [
            (outcome["size"], at_hand[row["source"]])
            for row, outcome in zip(rows, outcomes, strict=True)
            if isinstance(outcome, dict)
        ]
        count(
            bytes_read=sum(size for size, _ in sizes),
            bytes_transferred=sum(size for size, local in sizes if not local),
        )
        return results([row["key"] for row in rows], outcomes, time.perf_counter() - began, self.schema)

    def _reveal(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with `uri` and `place` as their sources know them; in memory alone."""
        names = [split_locator(row["locator"] or "") for row in rows]
        try:
            revealed = self._secrets.reveal(name for _, name in names if name)
            problem = "its URL is no longer among the store's secrets; register a new version"
        except UserError as error:
            revealed, problem = {}, str(error)
        return [
            {
                **row,
                "uri": revealed.get(name, row["source_uri"]),
                "place": place,
                "secret": name,
                "problem": problem if name and name not in revealed else "",
            }
            for row, (place, name) in zip(rows, names, strict=True)
        ]

    def _fetch_part(self, rows: list[dict[str, Any]]) -> list[Any]:
        """Fetch a part of a batch, and put small contents into packs."""
        # Whole objects are read concurrently; records of one file in order, since they share its handle.
        if all(self._sources[row["source"]].single_object for row in rows):
            threads = max(source.spec.fetch.concurrency for source in self._sources.values())
            with ThreadPoolExecutor(threads) as pool:
                fetched = list(pool.map(self._fetch_one, rows))
        else:
            fetched = [self._fetch_one(row) for row in rows]
        fetched = self._refuse_changed(rows, fetched)
        fetched = [_compare_hash(row, item) for row, item in zip(rows, fetched, strict=True)]
        if self._tombstones:
            fetched = [self._refuse_forgotten(item) for item in fetched]
        outcomes: list[Any] = list(fetched)
        small = [i for i, item in enumerate(fetched) if isinstance(item, bytes)]
        for i, content in zip(small, self.blobs.put(fetched[i] for i in small), strict=True):
            outcomes[i] = {"content_hash": content, "size": len(fetched[i])}
        return outcomes

    def _refuse_forgotten(self, fetched: Any) -> Any:
        """Return the fetched content, or the error that it was forgotten.

        A large one was stored before its hash was known, and is removed again.
        """
        if isinstance(fetched, SampleError):
            return fetched
        digest = content_hash(fetched) if isinstance(fetched, bytes) else fetched["content_hash"]
        if digest not in self._tombstones:
            return fetched
        if not isinstance(fetched, bytes):
            self.blobs.remove_large(digest)
        return forgotten_error(digest, self._tombstones[digest])

    def _refuse_changed(self, rows: list[dict[str, Any]], fetched: list[Any]) -> list[Any]:
        """Return the fetched contents, or the error of each whose object has changed since it was listed.

        Tags are compared after reading, so that a change during it is detected too; once for each object.
        """
        tags: dict[tuple[str, str, str], str | None] = {}
        outcomes = []
        for row, outcome in zip(rows, fetched, strict=True):
            source = self._sources[row["source"]]
            key = (row["source"], row["uri"], row["place"] if source.single_object else "")
            if not isinstance(outcome, SampleError) and key not in tags:
                tag = call_guarded(source.tag, (row["uri"], row["place"]))
                tags[key] = None if tag is None or isinstance(tag, SampleError) else bound_tag(tag)
            now = tags.get(key)
            # An object that was listed without a tag cannot be compared.
            if row["tag"] and not isinstance(outcome, SampleError) and now not in (None, row["tag"]):
                message = (
                    f"{row['source_uri']} was listed as {row['tag']} and is {now} now; "
                    "a version stays frozen, so register a new one"
                )
                outcome = SampleError("source_changed", message, retryable=True)
            outcomes.append(outcome)
        return outcomes

    def _fetch_one(self, row: dict[str, Any]) -> Any:
        """Return what `_fetch` does, or its error, without the secrets of the row's URL."""
        outcome = call_guarded(self._fetch, (row,))
        if row["secret"] and isinstance(outcome, SampleError):
            message = redact_text(outcome.message, find_secrets(row["uri"]))
            return SampleError(outcome.error_class, message, outcome.retryable)
        return outcome

    def _fetch(self, row: dict[str, Any]) -> bytes | dict[str, Any]:
        if row["problem"]:
            raise SampleError("fetch_error", f"{row['source_uri']}: {row['problem']}", retryable=True)
        if row["source"] in self._unresolved:
            raise self._unresolved[row["source"]]
        if self._sources[row["source"]].spec.blobs == "reference":
            return _hash_in_place(row, self._sources[row["source"]])
        try:
            # An object without credentials, or the package of its scheme, fails until the next run.
            with client_errors(row["source_uri"]):
                data = self._sources[row["source"]].fetch(row["uri"], row["place"])
            if isinstance(data, bytes):
                return data
        except (ConnectionError, ImportError) as error:
            raise SampleError("fetch_error", f"{row['source_uri']}: {error}", retryable=True) from error
        try:
            with data:
                digest, size = self.blobs.put_stream(cast(BinaryIO, _SourceStream(data, row["source_uri"])))
        except OSError as error:
            raise SampleError(
                "store_error", f"{row['source_uri']}: {type(error).__name__}: {error}", retryable=True
            ) from error
        return {"content_hash": digest, "size": size}


def is_local_source(source: SourceSpec) -> bool:
    """Return whether a source lies on this machine; a local table may still link remote objects."""
    return is_local(source.uri)


def _flavour(spec: SourceSpec, source: Source) -> str:
    # A referenced object is hashed and not stored, so it has to be fetched where the spec wants copies.
    return f"{source.flavour}|reference" if spec.blobs == "reference" else source.flavour


def _hash_in_place(row: dict[str, Any], source: Source) -> dict[str, Any]:
    """Hash an object that stays in its source."""
    if row["secret"] or row["place"] or not row["tag"]:
        reason = "comes from a source that tells no change"
        if row["place"]:
            reason = "is no whole object with a name in UTF-8"
        if row["secret"]:
            reason = "has a secret in its URL, which would be stored with it"
        raise SampleError("not_referable", f"{row['source_uri']} {reason}: copy it (blobs: copy)")
    reference = Reference(row["source_uri"], row["tag"])
    reference.check()
    # By the source, which follows no link that leads out of it.
    with reference.open() if not isinstance(source, Files) else source.open(row["uri"], "") as stream:
        digest, size = copy_stream(cast(BinaryIO, _SourceStream(stream, row["source_uri"])))
    return {"content_hash": digest, "size": size}


class _SourceStream:
    """A source's stream, whose errors are distinct from the store's."""

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


def _compare_hash(row: dict[str, Any], fetched: Any) -> Any:
    """Return the fetched content, or the error that it is not what the listing has hashed at its place.

    The listing read these bytes: what keeps a fetch from reading them, other than a request to forget them,
    came later and may pass.
    """
    listed = row.get("content_hash")
    if not listed:
        return fetched
    if isinstance(fetched, SampleError):
        return SampleError(fetched.error_class, fetched.message, retryable=True)
    found = content_hash(fetched) if isinstance(fetched, bytes) else fetched["content_hash"]
    if found == listed:
        return fetched
    message = (
        f"{row['source_uri']} was listed with other bytes at {row['place']} than it has now; "
        "a version stays frozen, so register a new one"
    )
    return SampleError("source_changed", message, retryable=True)


def _split_into_packs(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split rows into parts whose listed sizes fill one pack, which bounds the bytes in memory."""
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
