"""TODO."""

from __future__ import annotations

import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field
from mm_embed_kernels.contracts.fields import CONTENT, ENTITY, HASH, ID, KEY, MEDIA, SAMPLE, TIME, URI

SEGMENTS = Contract(
    "segments",
    pa.schema(
        [
            field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
            SAMPLE,
            CONTENT,
            field("span", pa.string(), "place inside the blob, e.g. full or chars=0-812", required=True),
            field("text", pa.string(), "the segment's text, where it is text"),
            field(
                "cost",
                pa.int64(),
                "work units by which shards are balanced (characters, pixels, samples)",
                required=True,
                ge=0,
            ),
            field("shard", pa.int32(), "which worker batch the segment is planned into", required=True, ge=0),
        ]
    ),
    key="segment_id",
    digest=("segment_id", "sample_id", "content_hash", "span"),
)


EMBEDDINGS = Contract(
    "embeddings",
    pa.schema(
        [
            field(
                "feature_id",
                pa.string(),
                "hash of segment and embedder fingerprint",
                required=True,
                pattern=ID,
            ),
            field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
            SAMPLE,
            CONTENT,
            field("span", pa.string(), "place inside the blob", required=True),
            field("embedder", pa.string(), "name of the embedder", required=True),
            field("fingerprint", pa.string(), "embedder fingerprint", required=True, pattern=HASH),
            field("cache_key", pa.string(), "where the vector lies in the compute cache", required=True),
            field("status", pa.string(), "ok or failed", required=True, choices=("ok", "failed")),
            field("seconds", pa.float64(), "wall seconds that the vector cost when it was computed", ge=0),
        ]
    ),
    key="feature_id",
    digest=("feature_id", "segment_id", "status", "cache_key"),
)


FEATURE = [
    field("feature_id", pa.string(), "hash of segment and embedder fingerprint", required=True, pattern=ID),
    field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID),
    SAMPLE,
    ENTITY,
    field("dataset", pa.string(), "name of the dataset", required=True),
    field("version", pa.string(), "version of the dataset", required=True),
    field("modality", pa.string(), "text, image, video, audio ...", required=True),
    CONTENT,
    URI,
    KEY,
    field("span", pa.string(), "place inside the blob", required=True),
    field("embedder", pa.string(), "name of the embedder", required=True),
    field("fingerprint", pa.string(), "embedder fingerprint", required=True, pattern=HASH),
    field("weights_hash", pa.string(), "sha256 over the weight files", required=True),
    field("preprocessing", pa.string(), "the embedder's preprocessing, as JSON", required=True),
    field("label", pa.string(), "the label, if there is one"),
    field("split", pa.string(), "train, validation, test ...", required=True),
    field("quality_score", pa.float64(), "share of rules passed", required=True, ge=0, le=1),
    field("passed", pa.list_(pa.string()), "ids of the rules that the sample passed"),
    field("duplicate_group", pa.string(), "group of equal or near-equal samples"),
    field("partial", pa.bool_(), "whether other segments or embedders of the sample failed", required=True),
    field("text", pa.string(), "text or transcript, where there is one"),
    *MEDIA,
    field("run_id", pa.string(), "Dagster run that published the row", required=True),
    field("created_at", TIME, "when the row was made", required=True),
]


# What a feature table holds beside its vectors and the user's columns.
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
)


def feature_contract(dimension: int, extra: list[pa.Field]) -> Contract:
    """The feature table's contract: the shared feature row plus its unit-norm vector and the user's columns."""
    vector = field("vector", pa.list_(pa.float32(), dimension), "unit-norm embedding", required=True)
    return Contract("feature_table", pa.schema([*FEATURE, vector]), "feature_id", ("feature_id",)).extend(
        extra
    )


_TABLE = [
    field("embedder", pa.string(), "name of the embedder", required=True),
    field("fingerprint", pa.string(), "embedder fingerprint", required=True),
    field("primary", pa.bool_(), "whether publishing counts on this embedder", required=True),
    field("table", pa.string(), "LanceDB table below features/", required=True),
    field("lance_version", pa.int64(), "Lance version of the table", required=True, ge=1),
    field("rows", pa.int64(), "feature rows", required=True, ge=0),
    field("dimension", pa.int32(), "vector dimension", required=True, ge=1),
    field("space", pa.string(), "vectors of one space can be compared", required=True),
    field("index", pa.string(), "exact, or the type of the vector index", required=True),
    field("digest", pa.string(), "digest over the rows, without the vectors", required=True),
]


FEATURE_TABLE = Contract(
    "feature_table",
    pa.schema(_TABLE),
    key="embedder",
    digest=("embedder", "fingerprint", "table", "rows", "index", "digest"),
)


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
    digest=("embedder", "fingerprint", "table", "rows", "index", "digest"),
)
