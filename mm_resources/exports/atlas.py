"""A table of points for the viewer embedding-atlas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.exports.base import Request, Rows
from mm_resources.exports.parquet import Parquet
from mm_resources.retrieval.training_rows import is_vector

# Rows from which the axes of the projection are computed.
_ROWS = 50_000


class Atlas(Parquet):
    """Parquet files with the first two principal components of the vectors, ``projection_x`` and ``_y``.

    ``embedding-atlas FOLDER/part-*.parquet --x projection_x --y projection_y`` shows them; with ``--vector
    vector`` in their place it computes a UMAP.
    """

    name = "atlas"

    def schema(self, request: Request) -> pa.Schema:
        found = super().schema(request)
        for axis in ("x", "y"):
            found = found.append(pa.field(f"projection_{axis}", pa.float32()))
        return found

    def write(self, rows: Iterable[Rows], sink: BinaryIO, request: Request) -> Any:
        mean, axes = _axes(request)
        schema = self.schema(request)
        with pq.ParquetWriter(pa.PythonFile(sink, "w"), schema) as out:
            for each in rows:
                name = _vector(each.table)
                points = ((vectors_of(each.table[name]) - mean) @ axes).astype(np.float32)
                plain = self.table(each, request, super().schema(request))
                out.write_table(
                    pa.table([*plain.columns, *(pa.array(column) for column in points.T)], schema=schema)
                )
        return None


def _vector(table: pa.Table) -> str:
    names: list[str] = table.column_names
    return next(name for name in names if is_vector(name))


def _axes(request: Request) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean [d] and first two principal axes [d, 2] of (at most `_ROWS` of) the vectors."""
    reader = request.training_set.reader()
    chosen = np.linspace(0, len(reader) - 1, min(len(reader), _ROWS)).astype(np.int64)
    table = reader.select(["vector"])(chosen)
    vectors = vectors_of(table[_vector(table)]).astype(np.float64)
    mean = vectors.mean(axis=0)
    centered = vectors - mean
    _, axes = np.linalg.eigh(centered.T @ centered)
    first = axes[:, :-3:-1]
    # An eigenvector has no sign: its largest part is made positive.
    return mean, first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])
