"""Kernel of embedding: media are decoded in the sandbox, then embedded by a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.inference.devices import is_out_of_memory
from mm_embed_kernels.inference.runtime import keep_freed_memory
from mm_embed_kernels.kernels.base import RESULT, BlobReader, Kernel, Resources, Stage, replace_value, results
from mm_embed_kernels.kernels.blob_stage import load_blobs, map_in_sandbox
from mm_embed_kernels.kernels.decoded_input import INPUT, Decoder, check_input, to_arrays
from mm_embed_kernels.media import canaries
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits


class EmbedKernel(Kernel):
    """The unit-norm vector of a segment: decoding (CPU, sandbox; not for text), then inference (device)."""

    limits: Limits

    def __init__(
        self,
        embedder: Embedder,
        reader: BlobReader,
        limits: Limits = Limits(),
        decode: Resources = Resources(),
        infer: Resources = Resources(),
    ) -> None:
        self.embedder, self.reader, self.limits = embedder, reader, limits
        self.decode, self.infer = decode, infer
        self.models = (embedder,)
        self.name = f"embed:{embedder.name}"
        self.scope = f"embed-{type(embedder).name}"
        self.fingerprint = embedder.fingerprint
        self.payload = [pa.field("vector", pa.list_(pa.float32(), embedder.dimension))]
        self.seconds_per_row = embedder.seconds
        if embedder.input_shape is None:
            # Texts of one length form a batch without padding; the longest, which take the most memory, come
            # first.
            self.order = "length(text) DESC, key"

    def stages(self) -> list[Stage]:
        infer = InferStage(self.embedder, self.result, self.infer)
        if self.embedder.input_shape is None:
            return [infer]
        return [DecodeStage(self.embedder, self.reader, self.limits, self.decode), infer]


class DecodeStage(Stage):
    """Decodes blobs to arrays in the sandbox, so that the model's stage opens no untrusted bytes."""

    schema = pa.schema([*RESULT, INPUT])
    limits: Limits

    def __init__(self, embedder: Embedder, reader: BlobReader, limits: Limits, resources: Resources) -> None:
        self.embedder, self.reader, self.limits, self.resources = embedder, reader, limits, resources

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        modality, spans = get(self.embedder.modality), batch["span"].to_pylist()
        blobs = load_blobs(self.reader, batch, modality.streams)
        outcomes = map_in_sandbox(
            self.limits, Decoder(self.embedder), blobs, [(span,) for span in spans], modality
        )
        payloads = [check_input(outcome, self.embedder) for outcome in outcomes]
        return results(batch["key"].to_pylist(), payloads, time.perf_counter() - began, self.schema)


class InferStage(Stage):
    """Embeds inputs. A batch that the model refuses is embedded item by item."""

    infers = True

    def __init__(self, embedder: Embedder, schema: pa.Schema, resources: Resources) -> None:
        self.embedder, self.schema, self.resources = embedder, schema, resources

    @property
    def reads(self) -> tuple[Path, ...]:
        return self.embedder.weights

    def setup(self) -> None:
        keep_freed_memory()
        self.embedder.load()

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        decoded = INPUT.name in batch.column_names
        failed = (
            [status == "failed" for status in batch["status"].to_pylist()]
            if decoded
            else [False] * batch.num_rows
        )
        good = [i for i, bad in enumerate(failed) if not bad]
        outcomes: list[Any] = [None] * batch.num_rows
        if good:
            inputs = self._inputs(batch.take(good))
            for i, vector in zip(good, embed_each(self.embedder, inputs), strict=True):
                outcomes[i] = vector
        spent = (time.perf_counter() - began) / max(1, batch.num_rows)
        return self._assemble(batch, outcomes, spent)

    def canary(self, row: pa.Table) -> pa.Table:
        decoded = INPUT.name in row.column_names
        return replace_value(row, INPUT.name, b"") if decoded else replace_value(row, "text", canaries.WORDS)

    def _inputs(self, batch: pa.Table) -> Any:
        if self.embedder.input_shape is None:
            return batch["text"].to_pylist()
        return to_arrays(batch[INPUT.name], self.embedder)

    def _assemble(self, batch: pa.Table, outcomes: list[Any], spent: float) -> pa.Table:
        """Return the result rows; failed ones have a null vector."""
        size = batch.num_rows
        earlier = (
            batch.select([item.name for item in RESULT]).to_pylist()
            if "status" in batch.column_names
            else [{}] * size
        )
        vectors = np.zeros((size, self.embedder.dimension), np.float32)
        heads: list[dict[str, Any]] = []
        for i, (key, before, outcome) in enumerate(
            zip(batch["key"].to_pylist(), earlier, outcomes, strict=True)
        ):
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
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), self.embedder.dimension, mask=pa.array(missing)
        )
        return head.append_column("vector", column).cast(self.schema)


def embed_each(embedder: Embedder, inputs: Any) -> list[Any]:
    """Return a unit-norm vector, float32 [dimension], or a `SampleError` for each input.

    A batch that the model refuses is embedded item by item; one for which the device lacks memory, with fewer
    rows in a forward pass, as all that follow in this process.
    """
    try:
        raw = np.asarray(embedder.embed(inputs), dtype=np.float32)
        if raw.shape != (len(inputs), embedder.dimension):
            raise SampleError(
                "contract",
                f"{embedder.name} returned shape {raw.shape}, not {(len(inputs), embedder.dimension)}",
            )
    except Exception as error:  # noqa: BLE001 - a model may raise anything; the cause becomes the event
        if is_out_of_memory(error) and embedder.shrink_batches():
            return embed_each(embedder, inputs)
        if len(inputs) > 1:
            return [embed_each(embedder, inputs[i : i + 1])[0] for i in range(len(inputs))]
        if isinstance(error, SampleError):
            return [error]
        if is_out_of_memory(error):
            return [SampleError("store_error", f"{embedder.device} lacks memory for one row: {error}", True)]
        return [SampleError("embedding_error", f"{type(error).__name__}: {error}")]
    return [_unit_vector(vector) for vector in raw]


def _unit_vector(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | SampleError:
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm):
        return SampleError("bad_vector", "the model returned a vector that is not finite")
    if norm == 0:
        return SampleError("bad_vector", "the model returned a zero vector")
    unit: np.ndarray[Any, Any] = vector / np.float32(norm)
    return unit
