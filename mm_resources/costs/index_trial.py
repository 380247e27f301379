"""Trial of a vector index that no run of a store has built: its build time, measured on random vectors."""

from __future__ import annotations

import math
import tempfile
import time
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mm_resources.features import vector_indexes

_TRIAL_ROWS = (2_500, 10_000)


class BuildTime(NamedTuple):
    """Wall time of building an index, and time of all CPUs, seconds."""

    seconds: float
    cpu_seconds: float


def estimate_build(index: str, dimension: int, rows: int) -> BuildTime:
    """Estimate the time of building an index over so many rows; takes some seconds.

    The time of a row is the difference between trials over 10,000 and over 2,500 rows. In a graph, a row's
    neighbours are searched, in a time that grows with the logarithm of the graph's size (Malkov and Yashunin,
    2018); a large table has several graphs of `PARTITION_ROWS` each, which Lance builds one after the other.
    Lists grow linearly with their rows.
    """
    few, more = (_measure_build(index, dimension, count) for count in _TRIAL_ROWS)
    depth = (
        math.log(min(rows, vector_indexes.PARTITION_ROWS)) / math.log(_TRIAL_ROWS[1])
        if index == vector_indexes.GRAPH
        else 1.0
    )
    factor = depth * rows / (_TRIAL_ROWS[1] - _TRIAL_ROWS[0])
    return BuildTime(*(factor * max(0.0, large - small) for small, large in zip(few, more, strict=True)))


@cache  # Cells of one command share the trial of an index.
def _measure_build(index: str, dimension: int, rows: int) -> BuildTime:
    import lancedb

    vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
    with tempfile.TemporaryDirectory(prefix="mm-index-") as folder:
        table = lancedb.connect(folder).create_table("trial", pa.table({"vector": column}))
        began, cpu_before = time.perf_counter(), time.process_time()
        vector_indexes.build(table, table.version, index, texts=False)
        return BuildTime(time.perf_counter() - began, time.process_time() - cpu_before)
