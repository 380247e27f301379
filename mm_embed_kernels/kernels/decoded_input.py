"""Decoded inputs between the sandbox and the model: arrays as bytes without the zeros at their end.

A sound of one second in an array for ten is sent from process to process as a tenth of the array.
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
    """An embedder's `decode` that returns such bytes; picklable."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def __call__(self, data: Media, span: str) -> bytes:
        """Decode a span of a blob.

        Raises:
            SampleError: as `decode`, or ``contract`` for an array that is not what the embedder declares.
        """
        array = self.embedder.decode(data, span)
        shape, dtype = self.embedder.input_shape, np.dtype(self.embedder.input_dtype)
        if array.shape != shape or array.dtype != dtype:
            raise SampleError(
                "contract",
                f"the decoder returned {array.dtype}{list(array.shape)}, not {dtype}{list(shape or ())}",
            )
        flat = array.reshape(-1)
        return flat[: unpadded_length(flat)].tobytes()


def check_input(answer: Any, embedder: Embedder) -> dict[str, Any] | SampleError:
    """Return the payload row of a decoder's answer, which is not trusted to be what `Decoder` returns."""
    if isinstance(answer, SampleError):
        return answer
    size, most = np.dtype(embedder.input_dtype).itemsize, int(np.prod(embedder.input_shape or ()))
    if not isinstance(answer, bytes) or len(answer) % size or len(answer) > size * most:
        return SampleError("bad_answer", f"the decoder answered no {embedder.input_dtype} input of the model")
    return {INPUT.name: answer}


def to_arrays(column: pa.ChunkedArray, embedder: Embedder) -> np.ndarray[Any, Any]:
    """Return the arrays that `decode` returned, [n, *input_shape] of `input_dtype`.

    Args:
        column: of `INPUT`, without nulls.
        embedder: one with an `input_shape`.
    """
    assert embedder.input_shape is not None
    arrays = np.zeros((len(column), *embedder.input_shape), embedder.input_dtype)
    for row, data in zip(arrays.reshape(len(column), -1), column, strict=True):
        values = np.frombuffer(data.as_buffer(), arrays.dtype)
        row[: len(values)] = values
    return arrays
