from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.contracts.features import matrix_of, vectors_of

VECTOR = pa.list_(pa.float32(), 3)
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(pa.array(ROWS, VECTOR), id="array"),
        pytest.param(pa.array([ROWS[0], *ROWS, None], VECTOR).slice(1, 3), id="slice"),
        pytest.param(pa.chunked_array([ROWS], VECTOR), id="one chunk"),
        pytest.param(pa.chunked_array([ROWS[:1], [], ROWS[1:]], VECTOR), id="chunks"),
        pytest.param(pa.table({"vector": pa.array(ROWS, VECTOR), "n": [1, 2, 3]}), id="table"),
        pytest.param(pa.record_batch({"vector": pa.array(ROWS, VECTOR)}), id="batch"),
        pytest.param(pa.array(ROWS, pa.list_(pa.float64(), 3)), id="float64"),
    ],
)
def test_vectors_become_rows_of_a_float32_matrix(
    rows: pa.Table | pa.RecordBatch | pa.ChunkedArray | pa.Array,
) -> None:
    matrix = vectors_of(rows)
    assert matrix.dtype == np.float32
    assert matrix.tolist() == ROWS


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(pa.array([], VECTOR), id="array"),
        pytest.param(pa.chunked_array([], VECTOR), id="no chunk"),
        pytest.param(pa.chunked_array([[], []], VECTOR), id="empty chunks"),
    ],
)
def test_no_vectors_keep_their_dimension(rows: pa.ChunkedArray | pa.Array) -> None:
    assert vectors_of(rows).shape == (0, 3)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        pytest.param(pa.array([ROWS[0], None], VECTOR), "1 of 2 vectors are null", id="null vector"),
        pytest.param(pa.chunked_array([[None], ROWS[:1]], VECTOR), "1 of 2", id="null vector in a chunk"),
        pytest.param(pa.array([[1.0, None, 3.0]], VECTOR), "one has a null in it", id="null number"),
        pytest.param(pa.array(ROWS, pa.list_(pa.float32())), "fixed-size list is expected", id="lists"),
        pytest.param(pa.array([1.0]), "fixed-size list is expected", id="numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(rows: pa.ChunkedArray | pa.Array, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        vectors_of(rows)


def test_one_chunk_is_not_copied() -> None:
    column = pa.chunked_array([pa.array(ROWS, VECTOR)])
    assert np.shares_memory(vectors_of(column), vectors_of(column.chunk(0)))


def test_a_matrix_keeps_the_digits_of_its_type() -> None:
    """2**24 + 1 is the first whole number that float32 does not hold."""
    column = pa.array([[2.0**24 + 1, 0.1]], pa.list_(pa.float64(), 2))
    matrix = matrix_of(column)
    assert matrix.dtype == np.float64
    assert matrix.tolist() == [[16_777_217.0, 0.1]]
