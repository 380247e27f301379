"""What it takes to build a vector index that no run of a store has built yet: tried on vectors of random directions."""

from __future__ import annotations

import math
import tempfile
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mm_resources import indexes

_TRIED_ROWS = 10_000


class Building(NamedTuple):
    """Wall time, and time of all CPUs that work on it."""

    seconds: float
    cpu_seconds: float


def building(index: str, dimension: int, rows: int) -> Building:
    """The building of an index over so many rows, by that of one over 10,000, which takes some seconds.

    A graph is searched for the neighbours of each row, the longer the more it holds, but for its logarithm alone (Malkov and Yashunin,
    2018); lists grow with their rows.
    """
    import lancedb

    few = min(rows, _TRIED_ROWS)
    vectors = np.random.default_rng(0).standard_normal((few, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
    with tempfile.TemporaryDirectory(prefix="mm-index-") as folder:
        table = lancedb.connect(folder).create_table("tried", pa.table({"vector": column}))
        began, used = time.perf_counter(), time.process_time()
        indexes.build(table, table.version, index, texts=False)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    deeper = math.log(min(rows, indexes.PARTITION_ROWS)) / math.log(few) if index == indexes.GRAPH else 1.0
    return Building(seconds * deeper * rows / few, cpu_seconds * deeper * rows / few)
