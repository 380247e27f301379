"""Decoded inputs on their way from the sandbox to the model: as bytes, without the zeros at their end.

A sound of a second is an array of ten, of which nine are not sent from process to process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.inference.padding import unpadded_length
from mm_embed_kernels.media.media_type import Media

INPUT = pa.field("input", pa.large_binary())


class Decoder:
    """Picklable: an embedder's `decode` as such bytes."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def __call__(self, data: Media, span: str) -> bytes:
        """Raises:
        SampleError: as `decode`, or ``contract`` for an array that is not what the embedder declares.
        """
        found, shape, dtype = (
            self.embedder.decode(data, span),
            self.embedder.input_shape,
            np.dtype(self.embedder.input_dtype),
        )
        if found.shape != shape or found.dtype != dtype:
            raise SampleError(
                "contract",
                f"the decoder returned {found.dtype}{list(found.shape)}, not {dtype}{list(shape or ())}",
            )
        flat = found.reshape(-1)
        return flat[: unpadded_length(flat)].tobytes()


def to_arrays(column: pa.ChunkedArray, embedder: Embedder) -> np.ndarray[Any, Any]:
    """What `decode` returned, [n, *input_shape]."""
    assert embedder.input_shape is not None
    whole = np.zeros((len(column), *embedder.input_shape), embedder.input_dtype)
    for row, data in zip(whole.reshape(len(column), -1), column, strict=True):
        values = np.frombuffer(data.as_buffer(), whole.dtype)
        row[: len(values)] = values
    return whole
