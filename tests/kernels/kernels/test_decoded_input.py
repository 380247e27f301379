from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.decoded_input import INPUT, Decoder, to_arrays


class Given(Embedder):
    """Decodes to what it was made with."""

    name = "given"
    modality = "image"
    dimension = 1
    weights = ()
    preprocessing = {}

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.array = array
        self.input_shape, self.input_dtype = array.shape, str(array.dtype)

    def load(self) -> None:
        pass

    def decode(self, data: Any, span: str) -> np.ndarray[Any, Any]:
        return self.array

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        raise NotImplementedError


shapes = st.one_of(
    st.tuples(st.integers(1, 40_000)), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_array_arrives_as_it_was(data: st.DataObject) -> None:
    kind, shape = data.draw(st.sampled_from([np.float32, np.uint8])), data.draw(shapes)
    array = np.zeros(shape, kind)
    filled = data.draw(st.integers(0, array.size))
    values = st.floats(width=32, allow_subnormal=False) if kind is np.float32 else st.integers(0, 255)
    array.reshape(-1)[:filled] = data.draw(any_array(kind, filled, elements=values, fill=values))
    embedder = Given(array)
    sent = pickle.loads(pickle.dumps(Decoder(embedder)))(b"", "")
    (found,) = to_arrays(pa.chunked_array([pa.array([sent], INPUT.type)]), embedder)
    np.testing.assert_array_equal(found, array)
    assert len(sent) <= filled * array.itemsize


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float64)])
def test_another_array_than_is_declared_is_refused(array: np.ndarray[Any, Any]) -> None:
    embedder = Given(array)
    embedder.input_shape, embedder.input_dtype = (3, 2), "float32"
    with pytest.raises(SampleError, match="the decoder returned float"):
        Decoder(embedder)(b"", "")
