"""What it takes to build a vector index that no run of a store has built yet: tried on vectors of random directions."""

from __future__ import annotations

import math
import tempfile
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mm_resources.features import vector_indexes

_TRIED_ROWS = (2_500, 10_000)


class Building(NamedTuple):
    """Wall time, and time of all CPUs that work on it."""

    seconds: float
    cpu_seconds: float


def building(index: str, dimension: int, rows: int) -> Building:
    """The building of an index over so many rows: what each of them takes in one over 10,000, beside one over 2,500; some seconds.

    A graph is searched for the neighbours of each row, the longer the more it holds, but for its logarithm alone (Malkov and Yashunin,
    2018); a large table has several, of `PARTITION_ROWS` each, and Lance builds one after the other. Lists grow with their rows.
    """
    few, more = (_built(index, dimension, count) for count in _TRIED_ROWS)
    deeper = (
        math.log(min(rows, vector_indexes.PARTITION_ROWS)) / math.log(_TRIED_ROWS[1])
        if index == vector_indexes.GRAPH
        else 1.0
    )
    share = deeper * rows / (_TRIED_ROWS[1] - _TRIED_ROWS[0])
    return Building(*(share * max(0.0, large - small) for small, large in zip(few, more, strict=True)))


def _built(index: str, dimension: int, rows: int) -> Building:
    import lancedb

    vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
    with tempfile.TemporaryDirectory(prefix="mm-index-") as folder:
        table = lancedb.connect(folder).create_table("tried", pa.table({"vector": column}))
        began, used = time.perf_counter(), time.process_time()
        vector_indexes.build(table, table.version, index, texts=False)
        return Building(time.perf_counter() - began, time.process_time() - used)
