"""Contracts of the stages that hold samples, from the listing to curation."""

from __future__ import annotations

import pyarrow as pa

from mm_embed_kernels.contracts.contract import Contract, field
from mm_embed_kernels.contracts.fields import (
    CONTENT_HASH,
    DUPLICATE_GROUP,
    HASH,
    MEDIA,
    MODIFIED_AT,
    PASSED,
    PASSENGERS,
    QUALITY_SCORE,
    SAMPLE_ID,
    SIZE,
    TIME,
    count,
)

DATASET_REGISTRY = Contract(
    "dataset_registry",
    pa.schema(
        [
            SAMPLE_ID,
            *PASSENGERS,
            field(
                "locator",
                pa.string(),
                "where inside the source URI the sample lies; opaque to all but its source",
            ),
            field("tag", pa.string(), "etag, or size and mtime, of the source URI when it was listed"),
            count("size", "bytes, as listed", required=False),
            MODIFIED_AT,
            field("error_class", pa.string(), "set where the listing itself refuses the sample"),
            field("message", pa.string(), "why the listing refuses it"),
            field(
                "content_hash",
                pa.string(),
                "sha256 of a sample inside an object, hex, where the listing reads it; its place may move",
                pattern=HASH,
            ),
        ]
    ),
    key="sample_id",
    digest=(
        "sample_id",
        "entity_id",
        "key",
        "source_uri",
        "label",
        "group",
        "transcript",
        "locator",
        "tag",
        "error_class",
    ),
    stand_ins=(("locator", "content_hash"), ("tag", "content_hash"), ("size", "content_hash")),
)

RAW_ASSETS = Contract(
    "raw_assets",
    pa.schema(
        [
            SAMPLE_ID,
            *PASSENGERS,
            field("status", pa.string(), "fetched or failed", required=True, choices=("fetched", "failed")),
            field(
                "content_hash",
                pa.string(),
                "sha256 of the bytes, hex; null when the fetch failed",
                pattern=HASH,
            ),
            count("size", "bytes read", required=False),
            field("tag", pa.string(), "etag, or size and mtime, as listed"),
            MODIFIED_AT,
        ]
    ),
    key="sample_id",
    digest=(
        "sample_id",
        "entity_id",
        "key",
        "source_uri",
        "label",
        "group",
        "transcript",
        "status",
        "content_hash",
    ),
    makers=("tag", "modified_at"),
)

CONTENT_BLOBS = Contract(
    "content_blobs",
    pa.schema(
        [
            CONTENT_HASH,
            SIZE,
            field(
                "refcount", pa.int64(), "samples of this cell that reference the blob", required=True, ge=1
            ),
            field(
                "path",
                pa.string(),
                "object or pack below the store root; source:URI#TAG of one that stays in its source",
                required=True,
            ),
            count("offset", "first byte inside the object"),
            field(
                "verified_at", TIME, "when the stored object was last seen to hold these bytes", required=True
            ),
        ]
    ),
    key="content_hash",
    digest=("content_hash", "size", "refcount"),
    makers=("verified_at",),
)

SAMPLE_METADATA = Contract(
    "sample_metadata",
    pa.schema(
        [
            SAMPLE_ID,
            *PASSENGERS,
            CONTENT_HASH,
            SIZE,
            MODIFIED_AT,
            field("probe", pa.string(), "ok or failed", required=True, choices=("ok", "failed")),
            field("error_class", pa.string(), "cause, when the probe failed"),
            field("message", pa.string(), "one line, when the probe failed"),
            field("retryable", pa.bool_(), "whether the same bytes may pass later"),
            # Nullable here: a failed probe measures nothing. The validation contract requires them.
            *[item.with_nullable(True) for item in MEDIA],
        ]
    ),
    key="sample_id",
    digest=("sample_id", "content_hash", "probe", "error_class", "mime", "label", "group", "entity_id"),
    makers=("modified_at",),
)

VALIDATED_SAMPLES = Contract(
    "validated_samples",
    pa.schema([SAMPLE_ID, *PASSENGERS, CONTENT_HASH, SIZE, MODIFIED_AT, *MEDIA]),
    key="sample_id",
    digest=("sample_id", "content_hash", "mime", "label", "group", "entity_id"),
    makers=("modified_at",),
)

RULE_DECISION = pa.struct(
    [
        ("rule", pa.string()),
        ("version", pa.string()),
        ("passed", pa.bool_()),
        ("action", pa.string()),
        ("value", pa.string()),
        ("threshold", pa.string()),
        ("reason", pa.string()),
    ]
)
DUPLICATE = pa.struct(
    [
        ("of", pa.string()),
        ("kind", pa.string()),
        ("score", pa.float64()),
        ("span", pa.string()),
    ]
)

CURATED_SAMPLES = Contract(
    "curated_samples",
    pa.schema(
        [
            SAMPLE_ID,
            *PASSENGERS,
            CONTENT_HASH,
            *MEDIA,
            field("kept", pa.bool_(), "whether the sample goes on to be embedded", required=True),
            field("rule", pa.string(), "the first rule that dropped it"),
            field("reason", pa.string(), "what that rule measured, against which threshold"),
            field("rules", pa.list_(RULE_DECISION), "every rule's decision, value and threshold"),
            PASSED,
            QUALITY_SCORE,
            DUPLICATE_GROUP,
            field("duplicates", pa.list_(DUPLICATE), "evidence: of which sample, kind, score, span"),
            field("split_group", pa.string(), "what is hashed into a split", required=True),
            field("split", pa.string(), "train, validation, test, or as the spec names them", required=True),
        ]
    ),
    key="sample_id",
    digest=(
        "sample_id",
        "content_hash",
        "kept",
        "rule",
        "passed",
        "duplicate_group",
        "split_group",
        "split",
        "label",
        "entity_id",
        "mime",
    ),
)
