"""Fields that several contracts share, named after their columns."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from mm_embed_kernels.contracts.contract import field

TIME = pa.timestamp("us", tz="UTC")
HASH = r"^[0-9a-f]{64}$"
ID = r"^[0-9a-f]{32}$"


def current_times(rows: int) -> pa.Array:
    """Return the present time for each of so many rows, of the type `TIME`."""
    return pa.array([datetime.now(UTC)] * rows, TIME)


def count(name: str, description: str, *, required: bool = True) -> pa.Field:
    """Return an int64 field that is not negative."""
    return field(name, pa.int64(), description, required=required, ge=0)


def amount(name: str, description: str, *, required: bool = True) -> pa.Field:
    """Return a float64 field that is not negative: seconds, or a price."""
    return field(name, pa.float64(), description, required=required, ge=0)


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column's type is an integer or a floating-point type."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


# The cell.
DATASET = field("dataset", pa.string(), "name of the dataset", required=True)
VERSION = field("version", pa.string(), "version of the dataset", required=True)

# A sample, and the segments and features computed from it.
SAMPLE_ID = field(
    "sample_id",
    pa.string(),
    "hash of dataset, source and key; stable across versions",
    required=True,
    pattern=ID,
)
ENTITY_ID = field("entity_id", pa.string(), "joins the modalities of one thing", required=True, pattern=ID)
KEY = field("key", pa.string(), "the sample's key inside its source", required=True)
SOURCE_URI = field("source_uri", pa.string(), "where the bytes come from", required=True)
SEGMENT_ID = field("segment_id", pa.string(), "hash of sample and span", required=True, pattern=ID)
SPAN = field("span", pa.string(), "place inside the blob", required=True)
FEATURE_ID = field(
    "feature_id", pa.string(), "hash of segment and embedder fingerprint", required=True, pattern=ID
)

# Its bytes.
CONTENT_HASH = field("content_hash", pa.string(), "sha256 of the bytes, hex", required=True, pattern=HASH)
SIZE = count("size", "bytes")
MODIFIED_AT = field("modified_at", TIME, "mtime, as listed")

# Curation.
QUALITY_SCORE = field("quality_score", pa.float64(), "share of rules passed", required=True, ge=0, le=1)
PASSED = field("passed", pa.list_(pa.string()), "ids of the rules that the sample passed")
DUPLICATE_GROUP = field("duplicate_group", pa.string(), "group of equal or near-equal samples")

# The embedder.
EMBEDDER = field("embedder", pa.string(), "name of the embedder", required=True)
EMBEDDER_FINGERPRINT = field("fingerprint", pa.string(), "embedder fingerprint", required=True, pattern=HASH)

# Columns that travel with a sample from the listing to the feature row.
PASSENGERS = [
    ENTITY_ID,
    KEY,
    SOURCE_URI,
    field("source", pa.string(), "name of the source in the spec", required=True),
    field("label", pa.string(), "the label, if the source has one"),
    field("group", pa.string(), "declared split group; samples of one group never straddle splits"),
    field("transcript", pa.string(), "text that the source gives for the sample"),
]

# Measured by every probe, for every modality; a modality adds its own signals.
MEDIA = [
    field("mime", pa.string(), "media type decided by content", required=True),
    field("width", pa.int32(), "pixels", ge=1),
    field("height", pa.int32(), "pixels", ge=1),
    field("duration", pa.float64(), "seconds", ge=0),
    field("sample_rate", pa.int32(), "Hz", ge=1),
    field("language", pa.string(), "ISO 639-1 code of the text or speech"),
    field("captured_at", TIME, "timestamp that the medium itself carries"),
]
