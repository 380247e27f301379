"""Fields that several contracts share, and the time zone rule that they rely on."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from mm_embed_kernels.contracts.contract import field

TIME = pa.timestamp("us", tz="UTC")
HASH = r"^[0-9a-f]{64}$"
ID = r"^[0-9a-f]{32}$"
SAMPLE = field(
    "sample_id",
    pa.string(),
    "hash of dataset, source and key; stable across versions",
    required=True,
    pattern=ID,
)
CONTENT = field("content_hash", pa.string(), "sha256 of the bytes, hex", required=True, pattern=HASH)
KEY = field("key", pa.string(), "the sample's key inside its source", required=True)
URI = field("source_uri", pa.string(), "where the bytes come from", required=True)
ENTITY = field("entity_id", pa.string(), "joins the modalities of one thing", required=True, pattern=ID)


# Columns that travel with a sample from the listing to the feature row.
PASSENGERS = [
    ENTITY,
    KEY,
    URI,
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


def in_utc(moment: datetime) -> datetime:
    """Return the same instant in UTC; a time without a zone is read as UTC.

    Importing pandera sets ``PYARROW_IGNORE_TIMEZONE``, under which pyarrow stores an aware time's wall clock: only
    times that are in UTC already are stored right whatever was imported before.
    """
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
