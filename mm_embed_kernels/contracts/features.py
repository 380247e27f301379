"""Contracts of the stages that hold segments, vectors and feature rows, and reading a column of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field
from mm_embed_kernels.contracts.fields import (
    CONTENT_HASH,
    DATASET,
    DUPLICATE_GROUP,
    EMBEDDER,
    EMBEDDER_FINGERPRINT,
    ENTITY_ID,
    FEATURE_ID,
    KEY,
    MEDIA,
    PASSED,
    QUALITY_SCORE,
    SAMPLE_ID,
    SEGMENT_ID,
    SOURCE_URI,
    SPAN,
    TIME,
    VERSION,
    amount,
    count,
)

SEGMENTS = Contract(
    "segments",
    pa.schema(
        [
            SEGMENT_ID,
            SAMPLE_ID,
            CONTENT_HASH,
            field("span", pa.string(), "place inside the blob, e.g. full or chars=0-812", required=True),
            field("text", pa.string(), "the segment's text, where it is text"),
            count("cost", "work units by which shards are balanced (characters, pixels, samples)"),
            field("shard", pa.int32(), "which worker batch the segment is planned into", required=True, ge=0),
        ]
    ),
    key="segment_id",
    digest=("segment_id", "sample_id", "content_hash", "span"),
    makers=("shard",),
)

EMBEDDINGS = Contract(
    "embeddings",
    pa.schema(
        [
            FEATURE_ID,
            SEGMENT_ID,
            SAMPLE_ID,
            CONTENT_HASH,
            SPAN,
            EMBEDDER,
            EMBEDDER_FINGERPRINT,
            field("cache_key", pa.string(), "where the vector lies in the compute cache", required=True),
            field("status", pa.string(), "ok or failed", required=True, choices=("ok", "failed")),
            amount("seconds", "wall seconds that the vector cost when it was computed", required=False),
        ]
    ),
    key="feature_id",
    digest=("feature_id", "segment_id", "status", "cache_key"),
)

# The columns of a feature row beside its vector and the user's columns.
FEATURE = [
    FEATURE_ID,
    SEGMENT_ID,
    SAMPLE_ID,
    ENTITY_ID,
    DATASET,
    VERSION,
    field("modality", pa.string(), "text, image, video, audio ...", required=True),
    CONTENT_HASH,
    SOURCE_URI,
    KEY,
    SPAN,
    EMBEDDER,
    EMBEDDER_FINGERPRINT,
    field("weights_hash", pa.string(), "sha256 over the weight files", required=True),
    field("preprocessing", pa.string(), "the embedder's preprocessing, as JSON", required=True),
    field("label", pa.string(), "the label, if there is one"),
    field("split", pa.string(), "train, validation, test ...", required=True),
    QUALITY_SCORE,
    PASSED,
    DUPLICATE_GROUP,
    field("partial", pa.bool_(), "whether other segments or embedders of the sample failed", required=True),
    field("text", pa.string(), "text or transcript, where there is one"),
    *MEDIA,
    field("run_id", pa.string(), "Dagster run that made the row", required=True),
    field("created_at", TIME, "when the row was made", required=True),
]
FEATURES = Contract("features", pa.schema(FEATURE), key="feature_id", digest=("feature_id",))

NORMALIZED_FEATURES = Contract(
    "normalized_features",
    pa.schema([*FEATURE, field("cache_key", pa.string(), "where the checked vector lies", required=True)]),
    key="feature_id",
    digest=(
        "feature_id",
        "label",
        "split",
        "passed",
        "duplicate_group",
        "partial",
        "text",
        "content_hash",
        "source_uri",
        "entity_id",
    ),
    makers=("version", "run_id", "created_at"),
)

# One row for each embedder of a cell.
_TABLE = [
    EMBEDDER,
    field("fingerprint", pa.string(), "embedder fingerprint", required=True),
    field("primary", pa.bool_(), "whether publishing counts on this embedder", required=True),
    field("table", pa.string(), "LanceDB table below features/, shared with other versions", required=True),
    field("lance_version", pa.int64(), "Lance version of the table", required=True, ge=1),
    count("rows", "feature rows"),
    field("dimension", pa.int32(), "vector dimension", required=True, ge=1),
    field("space", pa.string(), "vectors of one space can be compared", required=True),
    field("index", pa.string(), "exact, or the type of the vector index", required=True),
    field("digest", pa.string(), "digest over the rows, without the vectors", required=True),
]
# Not the table and its version: versions with the same rows are the same, wherever they are written.
_TABLE_DIGEST = ("embedder", "fingerprint", "rows", "index", "digest")

FEATURE_TABLE = Contract("feature_table", pa.schema(_TABLE), key="embedder", digest=_TABLE_DIGEST)

FEATURE_VIEWS = Contract(
    "feature_views",
    pa.schema(
        [
            *_TABLE,
            field(
                "recall",
                pa.float64(),
                "recall@10 of the index against exact search on the table's own vectors",
                ge=0,
                le=1,
            ),
            field(
                "recall_filtered",
                pa.float64(),
                "the same under a filter that one row in a hundred meets",
                ge=0,
                le=1,
            ),
            field("tag", pa.string(), "Lance tag that keeps the version", required=True),
            field("pin", pa.int64(), "number of the pin that readers resolve", required=True, ge=1),
            field("published_at", TIME, "when the pin was written", required=True),
        ]
    ),
    key="embedder",
    digest=_TABLE_DIGEST,
)


def feature_contract(dimension: int, extra: list[pa.Field]) -> Contract:
    """Return the contract of a feature table: feature row, unit-norm vector and the user's columns."""
    vector = field("vector", pa.list_(pa.float32(), dimension), "unit-norm embedding", required=True)
    return Contract("feature_table", pa.schema([*FEATURE, vector]), "feature_id", ("feature_id",)).extend(
        extra
    )


def vectors_of(rows: pa.Table | pa.RecordBatch | pa.ChunkedArray | pa.Array) -> np.ndarray[Any, Any]:
    """Return a column of vectors as a matrix, float32 [n, dimension]; it may share the column's memory.

    Args:
        rows: a column of fixed-size lists, or rows that have it as ``vector``.

    Raises:
        ValueError: as `matrix_of`.
    """
    column = rows["vector"] if isinstance(rows, pa.Table | pa.RecordBatch) else rows
    return np.asarray(matrix_of(column), np.float32)


def matrix_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray[Any, Any]:
    """Return a column of fixed-size lists as a matrix [n, size] of its own type; it may share the memory.

    Raises:
        ValueError: when the column is of another type, or a list or one of its numbers is null.
    """
    if not pa.types.is_fixed_size_list(column.type):
        raise ValueError(f"a column of {column.type} holds no vectors; a fixed-size list is expected")
    if not isinstance(column, pa.ChunkedArray):
        whole = column
    elif column.num_chunks == 1:  # which `combine_chunks` would copy
        whole = column.chunk(0)
    else:
        whole = column.combine_chunks()
    # Null lists are left out by `flatten`, so that the rows behind them would move up.
    numbers = whole.flatten()
    if whole.null_count or numbers.null_count:
        raise ValueError(f"{whole.null_count} of {len(whole)} vectors are null, or one has a null in it")
    matrix: np.ndarray[Any, Any] = numbers.to_numpy(zero_copy_only=False)
    return matrix.reshape(len(whole), column.type.list_size)
