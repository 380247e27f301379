"""Training sets of a service: pinned by their manifests, streamed as Arrow."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from threading import BoundedSemaphore, Lock
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, digest
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.filters import check_filter
from mm_resources.retrieval.training_set import TrainingSet
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import check_where
from mm_resources.serving.service import Service

Text = Annotated[str, Field(min_length=1, max_length=200)]
ARROW_TYPE = "application/vnd.apache.arrow.stream"
# A manifest repeats the filter once in parentheses, and the split.
_MORE_CHARS = 1_000


class TrainingSetBody(BaseModel):
    """A training set, see `FeatureStore.training_set`; a manifest takes the place of all else."""

    model_config = ConfigDict(extra="forbid")

    dataset_version: Text | None = None
    modality: Text | list[Text] | None = None
    where: str | None = Field(default=None, description="SQL over the feature columns")
    split: Text | None = None
    columns: list[Text] | None = Field(
        default=None, description="columns beside ids and vector; default: label"
    )
    embedder: Text | dict[str, Text] | None = None
    manifest: dict[str, Any] | None = Field(default=None, description="manifest of an earlier training set")
    verify: bool = False


class PinnedSet(BaseModel):
    """A training set that is pinned: its manifest, and the digest that names it."""

    digest: str
    rows: int
    manifest: dict[str, Any]


class TrainingSets:
    """The training sets that a service has pinned, by digest; the last ones are remembered."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, Lock()
        self._manifests: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._streams = BoundedSemaphore(service.limits.streams)

    def pin(self, body: TrainingSetBody) -> dict[str, Any]:
        """Return a training set as the fields of `PinnedSet`."""
        check_where(body.where, self._service.limits)
        features = self._service.features
        if body.manifest is not None:
            self._check_manifest(body.manifest)
        given = body.model_dump()
        chosen = features.training_set(given.pop("dataset_version"), **given)
        manifest = chosen.manifest
        # The rows alone do not name a set: all empty ones have the same.
        name = digest("training set", canonical_json(manifest))
        with self._lock:
            self._manifests[name] = manifest
            while len(self._manifests) > self._service.limits.manifests:
                self._manifests.popitem(last=False)
        return {"digest": name, "rows": manifest["rows"], "manifest": manifest}

    def _check_manifest(self, manifest: dict[str, Any]) -> None:
        """Check that a client's manifest names nothing but tables that a pin has published.

        Raises:
            Problem: where it names another one, or another file.
        """
        where, tables = manifest.get("where"), manifest.get("tables")
        if where is not None:
            most = self._service.limits.filter_chars + _MORE_CHARS
            if len(check_filter(where)) > most:
                raise Problem("bad_request", f"the manifest's filter has more than {most:,} characters")
        version = manifest.get("dataset_version")
        if "parts" in manifest:
            raise Problem(
                "bad_request", "a service makes no mixtures; open the store itself for this manifest"
            )
        if not isinstance(tables, list) or not isinstance(version, str) or len(tables) > 16:
            raise Problem("bad_request", "this is no manifest of a training set; give TrainingSet.manifest")
        for table in tables:
            if not isinstance(table, dict) or not self._is_pinned(version, table):
                raise Problem(
                    "bad_request", "the manifest names a table that no pin of its version has published"
                )

    def _is_pinned(self, version: str, table: dict[str, Any]) -> bool:
        registry, modality, number = self._service.catalog.registry, table.get("modality"), table.get("pin")
        if not isinstance(modality, str) or type(number) is not int:
            return False
        try:
            cell = registry.cells(version, modality)[0]
        except UserError:
            return False
        pin: Pin | None = registry.pins.get(cell, number) if number in registry.pins.numbers(cell) else None
        return pin is not None and any(
            (table.get("table"), table.get("lance_version")) == (each.table, each.lance_version)
            for each in pin.tables
        )

    def open(self, name: str) -> TrainingSet:
        """Return a set that was pinned.

        Raises:
            Problem: where it was not, or long ago.
        """
        with self._lock:
            manifest = self._manifests.get(name)
        if manifest is None:
            raise Problem("not_found", f"no training set {name[:80]} is pinned; send its manifest again")
        return TrainingSet(self._service.catalog, manifest)

    def stream(self, chosen: TrainingSet) -> Iterator[bytes]:
        """Stream the rows of a set as Arrow IPC, batch by batch.

        Raises:
            Problem: ``busy`` where as many sets are streamed as may be; at the call, not at the first batch.
        """
        if not self._streams.acquire(blocking=False):
            raise Problem("busy", "as many training sets are streamed as may be; send it again later")
        try:
            batches = chosen.stream()
            first = next(batches, None)
            schema = first.schema if first is not None else chosen.to_arrow().schema
        except BaseException:
            self._streams.release()
            raise
        return self._encode(schema, first, batches)

    def _encode(
        self, schema: pa.Schema, first: pa.RecordBatch | None, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[bytes]:
        try:
            sink = _Chunks()
            with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
                if first is not None:
                    writer.write_batch(first)
                    yield sink.take()
                for batch in batches:
                    writer.write_batch(batch)
                    yield sink.take()
            yield sink.take()
        finally:
            self._streams.release()


class _Chunks(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def writable(self) -> bool:
        return True

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
