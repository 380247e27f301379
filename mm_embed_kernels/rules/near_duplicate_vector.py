"""Rule `near_duplicate_vector`: nearly equal vectors (Abbas et al., "SemDeDup", 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules.base import Action
from mm_embed_kernels.rules.duplicates import NearDuplicateRule, match_rows
from mm_embed_kernels.rules.vectors import VectorIndex, VectorRule
from mm_embed_kernels.similarity import lsh
from mm_embed_kernels.sql import CellReader

# Bits of a bucket: about one pair in 16 million of unlike vectors shares one.
_BITS = 24
_RECALL, _MOST_BANDS = 0.99, 128


@dataclass
class NearDuplicateVector(VectorRule, NearDuplicateRule):
    """Almost the same meaning as another sample of the cell, by the cosine of their vectors.

    Finds what no comparison of bytes, pixels or words does: a translation, another photo of the same view.
    Vectors are those that the parent version has published of the same bytes. Candidates by random
    hyperplanes (Charikar, "Similarity estimation techniques from rounding algorithms", 2002), each compared
    exactly. Off by default: it needs a parent version, and near in meaning is not a copy.

    Attributes:
        min_similarity: least cosine of two vectors, 0.8 to 1.
    """

    name = "near_duplicate_vector"
    columns = ("sample_id", "key", "content_hash")
    extent = "1"
    kind = "near_vector"
    reason = "has almost the same vector as another sample"
    cost = 9

    action: Action = "off"
    min_similarity: float = 0.97

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.8 <= self.min_similarity <= 1:
            raise UserError(
                f"curation.rules.{self.name}.min_similarity: {self.min_similarity} is not from 0.8 to 1"
            )

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        index = VectorIndex(self._read_vectors)
        if not index.dimension:
            return
        bands = hyperplane_bands(self.min_similarity)
        planes = np.random.default_rng(0).standard_normal((index.dimension, bands * _BITS)).astype(np.float32)

        def read_vectors(columns: list[str]) -> pa.RecordBatchReader:
            schema = pa.schema([("vector", pa.binary()), ("n", pa.int32())])
            assert columns == ["vector"]

            def batches() -> Iterator[pa.RecordBatch]:
                for batch in read(["content_hash"]):
                    places = index.places(np.asarray(batch["content_hash"].to_pylist(), "S64"))
                    found = np.flatnonzero(places >= 0)
                    vectors = [row.tobytes() for row in index.vectors(places[found])] if len(found) else []
                    yield pa.record_batch(
                        [pa.array(vectors, pa.binary()), batch["n"].take(pa.array(found))], schema=schema
                    )

            return pa.RecordBatchReader.from_batches(schema, batches())

        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read_vectors(["vector"]):
                codes = _codes(_matrix(batch["vector"], index.dimension) @ planes, bands)
                yield lsh.entries(batch["n"].to_numpy(), lsh.buckets(codes, 1))

        for pairs in lsh.candidate_pairs(entries(), read_vectors, ["vector"]):
            sides = (_matrix(pairs[name], index.dimension) for name in ("x_vector", "y_vector"))
            cosine = np.einsum("nd,nd->n", *sides).astype(np.float64)
            yield match_rows(pairs, np.minimum(cosine, 1.0), cosine >= self.min_similarity - 1e-6)


def hyperplane_bands(similarity: float) -> int:
    """Return how many buckets of `_BITS` hyperplanes two vectors of a cosine share one of, at 99% recall."""
    agree = (1 - math.acos(min(1.0, similarity)) / math.pi) ** _BITS
    return 1 if agree >= 1 else min(_MOST_BANDS, math.ceil(math.log(1 - _RECALL) / math.log(1 - agree)))


def _codes(projected: np.ndarray[Any, Any], bands: int) -> np.ndarray[Any, Any]:
    """Return the sides of the planes on which vectors lie, as numbers, uint64 [n, bands]."""
    bits = (projected > 0).reshape(len(projected), bands, _BITS).astype(np.uint64)
    return np.asarray((bits << np.arange(_BITS, dtype=np.uint64)).sum(axis=2, dtype=np.uint64))


def _matrix(column: pa.Array, dimension: int) -> np.ndarray[Any, Any]:
    """Return vectors that are stored as bytes, float32 [n, dimension]."""
    return np.frombuffer(b"".join(column.to_pylist()), np.float32).reshape(-1, dimension)
