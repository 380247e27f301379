"""Kernels: expensive computations per content, described so that one mechanism can cache, resume and distribute them.

A kernel turns `REQUEST` rows into result rows, one for each request, never raising for a single bad row. It is a
chain of stages, each with its own resources, so that decoding (CPU) and inference (device) scale apart. The same
stages run inline and inside Ray actors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from mm_embed_kernels.decoded import INPUT, Decoder, arrays
from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import digest, environment_digest
from mm_embed_kernels.inference import keep_memory
from mm_embed_kernels.modalities import Media, Modality, get
from mm_embed_kernels.sandbox import Limits, guarded, shared_sandbox

if TYPE_CHECKING:
    from mm_embed_kernels.transcribers import Transcriber

REQUEST = pa.schema(
    [
        ("key", pa.string()),  # cache key: unique among the requests
        ("content_hash", pa.string()),
        ("span", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("text", pa.string()),
    ]
)
RESULT = [
    pa.field("key", pa.string()),
    pa.field("status", pa.string()),  # ok | failed
    pa.field("error_class", pa.string()),
    pa.field("message", pa.string()),
    pa.field("retryable", pa.bool_()),
    pa.field("seconds", pa.float64()),
]


class BlobReader(Protocol):
    """Reads one blob and verifies its hash; picklable, so that a worker can carry it."""

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes: ...

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """The bytes, or a local file of them where they are too many for memory."""


@dataclass(frozen=True)
class Resources:
    """What one actor of a stage asks for, and how rows reach it."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    actors: int = 1
    batch_rows: int = 64


class Stage(ABC):
    """One step of a kernel. Picklable until `setup`, which loads what is heavy.

    Attributes:
        schema: of the rows that it returns; what it lacks of a failed row is null.
        infers: whether a model works in its own process, which may die of what it is given (see `isolated`).
        limits: of the sandbox that it opens bytes in, if it does.
    """

    schema: pa.Schema
    resources: Resources = Resources()
    infers: bool = False
    limits: Limits | None = None

    def setup(self) -> None:  # noqa: B027 - a stage without heavy parts has nothing to set up
        """Load models or start children; called once per process."""

    @abstractmethod
    def run(self, batch: pa.Table) -> pa.Table:
        """One row out for each row in."""


class Kernel(ABC):
    """See the module's docstring.

    Attributes:
        name: ``fetch``, ``probe``, ``segment`` or ``embed:<embedder>``: what the ledger counts under.
        scope: sub-folder of the cache, e.g. ``probe-image``.
        fingerprint: whatever changes an output changes it.
        payload: the columns it computes.
        seconds_per_row: first guess of the cost of a row.
        limits: of the sandbox that it opens bytes in, if it does.
        checkpoint_rows: rows that one commit to the cache holds at most.
        order: of the requests, as SQL; by default that of keys, which begin with the content hash, so that a blob's segments
            come together and it is read once.
        models: what its stages load on whichever machine they run.
        here: whether its stages read what lies on this machine, so that no other one could run them.
    """

    name: str
    scope: str
    fingerprint: str
    payload: list[pa.Field]
    seconds_per_row: float
    limits: Limits | None = None
    checkpoint_rows: int = 32_768
    order: str = "key"
    models: tuple[Embedder | Transcriber, ...] = ()
    here: bool = False

    @property
    def environment(self) -> str:
        """Digest of what its permanent failures depend on."""
        return self.limits.environment if self.limits else environment_digest()

    @property
    def result(self) -> pa.Schema:
        return pa.schema([*RESULT, *(pa.field(item.name, item.type) for item in self.payload)])

    @abstractmethod
    def stages(self) -> list[Stage]: ...


def results(keys: list[str], outcomes: list[dict[str, Any] | SampleError], seconds: float, schema: pa.Schema) -> pa.Table:
    """Result rows from outcomes; `seconds` is shared evenly."""
    each = seconds / max(1, len(keys))
    rows = []
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, SampleError):
            rows.append(
                {
                    "key": key,
                    "status": "failed",
                    "error_class": outcome.error_class,
                    "message": outcome.message,
                    "retryable": outcome.retryable,
                    "seconds": each,
                }
            )
        else:
            rows.append({"key": key, "status": "ok", "retryable": False, "seconds": each, **outcome})
    return pa.Table.from_pylist(rows, schema=schema)


def load_blobs(reader: BlobReader, batch: pa.Table, streams: bool) -> list[Media | SampleError]:
    """The verified blob of each request, or why it cannot be had; requests of one blob share it.

    Args:
        streams: whether a large blob is wanted as a file.
    """
    load = reader.media if streams else reader.read
    places = list(zip(*(batch[name].to_pylist() for name in ("content_hash", "path", "offset", "size")), strict=True))
    loaded = {place: guarded(load, place) for place in dict.fromkeys(places)}
    return [loaded[place] for place in places]


def sandboxed(limits: Limits, function: Callable[..., Any], blobs: list[Media | SampleError], extra: list[tuple[Any, ...]]) -> list[Any]:
    """``function(blob, *extra)`` in the sandbox for each blob that could be read; errors keep their place."""
    good = [i for i, blob in enumerate(blobs) if not isinstance(blob, SampleError)]
    outcomes: list[Any] = list(blobs)
    for i, outcome in zip(good, shared_sandbox(limits).map(function, [(blobs[i], *extra[i]) for i in good]), strict=True):
        outcomes[i] = outcome
    return outcomes


class _BlobStage(Stage):
    """Reads blobs and calls a function on each inside the sandbox; the function returns the payload as a dict."""

    limits: Limits

    def __init__(
        self,
        reader: BlobReader,
        function: Callable[[Any], dict[str, Any]],
        streams: bool,
        schema: pa.Schema,
        limits: Limits,
        resources: Resources,
    ) -> None:
        self.reader, self.function, self.streams = reader, function, streams
        self.schema, self.limits, self.resources = schema, limits, resources

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        blobs = load_blobs(self.reader, batch, self.streams)
        outcomes = sandboxed(self.limits, self.function, blobs, [()] * len(blobs))
        return results(batch["key"].to_pylist(), outcomes, time.perf_counter() - began, self.schema)


# What a medium fails with of which the beginning may be readable.
PARTIAL = ("truncated", "decode_error")


class ProbeKernel(Kernel):
    """Metadata and quality signals of a blob.

    With ``on_partial="keep_prefix"``, of media too that can be read in part: a kernel for those alone (`PARTIAL`) that
    ``reject`` refuses, so that whole media have one fingerprint either way.
    """

    name = "probe"
    limits: Limits

    def __init__(
        self,
        modality: Modality,
        reader: BlobReader,
        limits: Limits = Limits(),
        resources: Resources = Resources(),
        on_partial: str = "reject",
    ) -> None:
        from mm_embed_kernels.contracts.stages import MEDIA

        self.modality, self.reader, self.limits, self.resources = modality, reader, limits, resources
        self.scope = f"probe-{modality.name}"
        self.function = modality.probe_prefix if on_partial == "keep_prefix" else modality.probe
        self.fingerprint = modality.fingerprint("probe")
        if on_partial != "reject":
            self.fingerprint = digest(on_partial, self.fingerprint)
        self.payload = [*MEDIA, *modality.signals]
        self.seconds_per_row = modality.probe_seconds

    def stages(self) -> list[Stage]:
        return [_BlobStage(self.reader, self.function, self.modality.streams, self.result, self.limits, self.resources)]


SPAN = pa.struct([("span", pa.string()), ("text", pa.string()), ("cost", pa.int64())])


class _Segmenter:
    """Picklable: a modality's `segment` as payload rows."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, data: Any) -> dict[str, Any]:
        found = self.modality.segment(data)
        if not found:
            raise SampleError("no_segments", f"the {self.modality.name} sample has nothing to embed")
        return {"segments": [{"span": item.span, "text": item.text, "cost": item.cost} for item in found]}


class SegmentKernel(Kernel):
    """The embeddable units of a blob."""

    name = "segment"
    limits: Limits

    def __init__(self, modality: Modality, reader: BlobReader, limits: Limits = Limits(), resources: Resources = Resources()) -> None:
        self.modality, self.reader, self.limits, self.resources = modality, reader, limits, resources
        self.scope = f"segment-{modality.name}"
        self.fingerprint = modality.fingerprint("segment")
        self.payload = [pa.field("segments", pa.list_(SPAN))]
        self.seconds_per_row = modality.segment_seconds

    def stages(self) -> list[Stage]:
        return [_BlobStage(self.reader, _Segmenter(self.modality), self.modality.streams, self.result, self.limits, self.resources)]


class EmbedKernel(Kernel):
    """The unit-norm vector of a segment: decode (CPU, sandboxed; not for text), then inference (device)."""

    limits: Limits

    def __init__(
        self,
        embedder: Embedder,
        reader: BlobReader,
        limits: Limits = Limits(),
        decode: Resources = Resources(),
        infer: Resources = Resources(),
    ) -> None:
        self.embedder, self.reader, self.limits, self.decode, self.infer = embedder, reader, limits, decode, infer
        self.models = (embedder,)
        self.name = f"embed:{embedder.name}"
        self.scope = f"embed-{type(embedder).name}"
        self.fingerprint = embedder.fingerprint
        self.payload = [pa.field("vector", pa.list_(pa.float32(), embedder.dimension))]
        self.seconds_per_row = embedder.seconds
        if embedder.input_shape is None:
            # Texts of one length are one batch without padding; the longest, which take the most memory, come first.
            self.order = "length(text) DESC, key"

    def stages(self) -> list[Stage]:
        infer = InferStage(self.embedder, self.result, self.infer)
        if self.embedder.input_shape is None:
            return [infer]
        return [DecodeStage(self.embedder, self.reader, self.limits, self.decode), infer]


class DecodeStage(Stage):
    """Blobs to arrays of a fixed size, in the sandbox: what the model's stage sees of untrusted bytes."""

    schema = pa.schema([*RESULT, INPUT])
    limits: Limits

    def __init__(self, embedder: Embedder, reader: BlobReader, limits: Limits, resources: Resources) -> None:
        self.embedder, self.reader, self.limits, self.resources = embedder, reader, limits, resources

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        blobs = load_blobs(self.reader, batch, get(self.embedder.modality).streams)
        outcomes = sandboxed(self.limits, Decoder(self.embedder), blobs, [(span,) for span in batch["span"].to_pylist()])
        found = [outcome if isinstance(outcome, SampleError) else {INPUT.name: outcome} for outcome in outcomes]
        return results(batch["key"].to_pylist(), found, time.perf_counter() - began, self.schema)


class InferStage(Stage):
    """Inputs to vectors. A batch that the model refuses is finished item by item."""

    infers = True

    def __init__(self, embedder: Embedder, schema: pa.Schema, resources: Resources) -> None:
        self.embedder, self.schema, self.resources = embedder, schema, resources

    def setup(self) -> None:
        keep_memory()
        self.embedder.load()

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        decoded = INPUT.name in batch.column_names
        failed = [status == "failed" for status in batch["status"].to_pylist()] if decoded else [False] * batch.num_rows
        good = [i for i, bad in enumerate(failed) if not bad]
        outcomes: list[Any] = [None] * batch.num_rows
        if good:
            inputs = self._inputs(batch.take(good))
            for i, vector in zip(good, embed_each(self.embedder, inputs), strict=True):
                outcomes[i] = vector
        spent = (time.perf_counter() - began) / max(1, batch.num_rows)
        return self._assemble(batch, outcomes, spent)

    def _inputs(self, batch: pa.Table) -> Any:
        if self.embedder.input_shape is None:
            return batch["text"].to_pylist()
        return arrays(batch[INPUT.name], self.embedder)

    def _assemble(self, batch: pa.Table, outcomes: list[Any], spent: float) -> pa.Table:
        """Vectors as one contiguous fixed-size-list buffer; failed rows hold a null vector."""
        size = batch.num_rows
        earlier = batch.select([item.name for item in RESULT]).to_pylist() if "status" in batch.column_names else [{}] * size
        vectors = np.zeros((size, self.embedder.dimension), np.float32)
        heads: list[dict[str, Any]] = []
        for i, (key, before, outcome) in enumerate(zip(batch["key"].to_pylist(), earlier, outcomes, strict=True)):
            seconds = spent + (before.get("seconds") or 0.0)
            if outcome is None:
                heads.append({**before, "seconds": seconds})
            elif isinstance(outcome, SampleError):
                heads += results([key], [outcome], seconds, pa.schema(RESULT)).to_pylist()
            else:
                vectors[i] = outcome
                heads.append({"key": key, "status": "ok", "retryable": False, "seconds": seconds})
        head = pa.Table.from_pylist(heads, schema=pa.schema(RESULT))
        missing = np.array([row["status"] == "failed" for row in heads], dtype=bool)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.embedder.dimension, mask=pa.array(missing))
        return head.append_column("vector", column).cast(self.schema)


def embed_each(embedder: Embedder, inputs: Any) -> list[Any]:
    """A unit-norm vector or a `SampleError` for each input.

    Raises nothing for a single item: when the model refuses a batch, each item is tried alone.
    """
    try:
        raw = np.asarray(embedder.embed(inputs), dtype=np.float32)
        if raw.shape != (len(inputs), embedder.dimension):
            raise SampleError("contract", f"{embedder.name} returned shape {raw.shape}, not {(len(inputs), embedder.dimension)}")
    except Exception as error:  # noqa: BLE001 - a model may raise anything; the cause is kept in the event
        if len(inputs) > 1:
            return [embed_each(embedder, inputs[i : i + 1])[0] for i in range(len(inputs))]
        if isinstance(error, SampleError):
            return [error]
        return [SampleError("embedding_error", f"{type(error).__name__}: {error}")]
    return [_unit(vector) for vector in raw]


def _unit(vector: np.ndarray[Any, Any]) -> Any:
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm):
        return SampleError("bad_vector", "the model returned a vector that is not finite")
    if norm == 0:
        return SampleError("bad_vector", "the model returned a zero vector")
    return vector / np.float32(norm)
