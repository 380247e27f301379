"""Media that are queries, read in the sandbox: their segments, and a model's inputs of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernels.answer_checks import check_segments
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.kernels.decoded_input import INPUT, Decoder, check_input
from mm_embed_kernels.kernels.segment import Segmenter
from mm_embed_kernels.modalities import Media, Modality, Segment, get
from mm_embed_kernels.sandbox.sandbox import Limits

# Number of segments of a medium whose mean vector is the query.
QUERY_SEGMENTS = 8
# A larger file of a modality that reads no streams is no query; it would be read into memory.
_MOST_BYTES = 256 << 20


def read_segments(data: Media, modality: Modality) -> tuple[Media, list[Segment]]:
    """Return a medium as its modality reads it, and its segments; of a long one, some that are spread evenly.

    Raises:
        UserError: for a file that is too large.
        SampleError: for one that cannot be read.
    """
    if isinstance(data, Path) and not modality.streams:
        size = data.stat().st_size
        if size > _MOST_BYTES:
            raise UserError(
                f"the query {data} has {size:,} bytes, more than {_MOST_BYTES:,}; use a smaller file"
            )
        data = data.read_bytes()
    (answer,) = map_in_sandbox(Limits(), Segmenter(modality), [data], [()], modality)
    checked = check_segments(answer)
    if isinstance(checked, SampleError):
        raise checked
    segments = [Segment(row["span"], row["text"], row["cost"]) for row in checked["segments"]]
    return data, _spread(segments)


def read_inputs(
    data: Media, segments: list[Segment], embedder: Embedder
) -> tuple[list[Any], list[SampleError]]:
    """Return an embedder's inputs of segments, and the errors of those that cannot be decoded."""
    shape = embedder.input_shape
    if shape is None:
        return [segment.text or "" for segment in segments], []
    spans = [(segment.span,) for segment in segments]
    modality = get(embedder.modality)
    answers = map_in_sandbox(Limits(), Decoder(embedder), [data] * len(spans), spans, modality)
    checked = [check_input(answer, embedder) for answer in answers]
    arrays = [_pad(item[INPUT.name], embedder) for item in checked if not isinstance(item, SampleError)]
    return arrays, [item for item in checked if isinstance(item, SampleError)]


def _pad(values: bytes, embedder: Embedder) -> np.ndarray[Any, Any]:
    array = np.zeros(cast(Any, embedder.input_shape), embedder.input_dtype)
    flat = np.frombuffer(values, array.dtype)
    array.reshape(-1)[: len(flat)] = flat
    return array


def _spread(segments: list[Segment]) -> list[Segment]:
    """Return at most `QUERY_SEGMENTS` segments, spread evenly from the first to the last."""
    last = len(segments) - 1
    chosen = {round(i * last / (QUERY_SEGMENTS - 1)) for i in range(QUERY_SEGMENTS)} if segments else set()
    return [segments[i] for i in sorted(chosen)]
