"""Reading blobs, and calling a function on each inside the sandbox."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.base import BlobReader, Resources, Stage, results
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities import Modality
from mm_embed_kernels.sandbox.canary import Canary
from mm_embed_kernels.sandbox.sandbox import Limits, call_guarded, shared_sandbox


def load_blobs(reader: BlobReader, batch: pa.Table, streams: bool) -> list[Media | SampleError]:
    """Return the verified blob of each request, or the error of reading it; requests of one blob share it.

    Args:
        reader: of the blob store.
        batch: rows of `REQUEST`.
        streams: whether a large blob is returned as a file.
    """
    load = reader.media if streams else reader.read
    locations = list(
        zip(*(batch[name].to_pylist() for name in ("content_hash", "path", "offset", "size")), strict=True)
    )
    loaded = {each: call_guarded(load, each) for each in dict.fromkeys(locations)}
    return [loaded[each] for each in locations]


def map_in_sandbox(
    limits: Limits,
    function: Callable[..., Any],
    blobs: list[Media | SampleError],
    extra: list[tuple[Any, ...]],
    modality: Modality,
) -> list[Any]:
    """Return ``function(blob, *extra)`` or a `SampleError` for each blob, computed in the sandbox.

    Args:
        limits: of the sandbox.
        function: picklable.
        blobs: an error is returned unchanged, at its place.
        extra: further arguments for each blob.
        modality: of the blobs; its healthy one tells whether they or the libraries end children.
    """
    good = [i for i, blob in enumerate(blobs) if not isinstance(blob, SampleError)]
    outcomes: list[Any] = list(blobs)
    healthy = modality.canary()
    canary = Canary(modality.probe, (healthy,)) if healthy else Canary()
    items = [(blobs[i], *extra[i]) for i in good]
    for i, outcome in zip(good, shared_sandbox(limits).map(function, items, canary), strict=True):
        outcomes[i] = outcome
    return outcomes


class BlobStage(Stage):
    """Calls a function on each blob inside the sandbox; the function returns the payload as a dict.

    Args:
        check: returns an answer, which is not trusted, or a `SampleError` in its place.
    """

    limits: Limits

    def __init__(
        self,
        reader: BlobReader,
        function: Callable[[Any], dict[str, Any]],
        check: Callable[[Any], Any],
        modality: Modality,
        schema: pa.Schema,
        limits: Limits,
        resources: Resources,
    ) -> None:
        self.reader, self.function, self.check, self.modality = reader, function, check, modality
        self.schema, self.limits, self.resources = schema, limits, resources

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        blobs = load_blobs(self.reader, batch, self.modality.streams)
        outcomes = map_in_sandbox(self.limits, self.function, blobs, [()] * len(blobs), self.modality)
        outcomes = [self.check(outcome) for outcome in outcomes]
        return results(batch["key"].to_pylist(), outcomes, time.perf_counter() - began, self.schema)
