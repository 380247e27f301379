"""Rows of `validated_samples` as input of rules."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mm_embed_kernels.contracts import VALIDATED_SAMPLES
from mm_embed_kernels.identity import sample_id
from mm_embed_kernels.modalities import modalities

CONTRACTS = {name: VALIDATED_SAMPLES.extend(item.signals) for name, item in modalities().items()}
# Signals of a valid sample of each modality.
GOOD: dict[str, dict[str, Any]] = {
    "text": {
        "mime": "text/plain", "language": "en", "encoding": "utf-8", "characters": 80, "words": 14, "language_confidence": 0.99,
        "letter_share": 0.95, "digit_share": 0.0, "symbol_share": 0.05, "distinct_word_share": 0.9, "replacement_characters": 0,
        "duplicate_line_share": 0.0, "repeated_5gram_share": 0.0, "boilerplate_share": 0.0, "mojibake": 0, "emails": 0, "phone_numbers": 0,
        "ip_addresses": 0, "minhash": None, "shingles": None,
    },
    "image": {
        "mime": "image/png", "width": 640, "height": 480, "format": "PNG", "mode": "RGB", "frames": 1, "brightness": 120.0,
        "contrast": 50.0, "entropy": 7.0, "sharpness": 200.0, "phash": "a266895c7433ce4f", "dhash": "ffffdbdfbfffdbdb",
        "colors": bytes(192), "thumbnail": bytes(768),
    },
    "audio": {
        "mime": "audio/x-flac", "duration": 4.2, "sample_rate": 44_100, "codec": "flac", "channels": 2, "bit_rate": 700_000,
        "loudness": -20.0, "peak": 0.9, "clipping_share": 0.0, "silence_share": 0.1, "speech_share": 0.7, "not_finite_share": 0.0, "damaged_packets": 0,
        "measured_seconds": 4.2, "fingerprint": bytes(4 * 91),
    },
    "video": {
        "mime": "video/mp4", "width": 640, "height": 360, "duration": 4.2, "codec": "h264", "frame_rate": 25.0, "frames": 105,
        "stated_frames": 105, "key_frames": 1, "bit_rate": 500_000, "audio_codec": "aac", "brightness": 120.0, "black_share": 0.0,
        "frozen_share": 0.1, "frame_hashes": bytes(12 * 8),
    },
    "document": {
        "mime": "application/pdf", "pages": 2, "measured_pages": 2, "text_pages": 2, "damaged_pages": 0, "characters": 80,
        "words": 14, "language": "en", "language_confidence": 0.99, "page_width": 595.0, "page_height": 842.0, "scripts": 0,
        "attachments": 0, "minhash": None, "shingles": None,
    },
}  # fmt: skip


def sample(modality: str, key: str = "a", **changed: Any) -> dict[str, Any]:
    """Return one row, whose content hash follows from its key."""
    identity = sample_id("birds", "s", key)
    row = {
        "sample_id": identity,
        "entity_id": identity,
        "key": key,
        "source_uri": f"/data/{key}",
        "source": "s",
        "size": 100,
    }
    return {**row, "content_hash": key.encode().hex().ljust(64, "0")[:64], **GOOD[modality], **changed}


def table(modality: str, *rows: dict[str, Any]) -> pa.Table:
    """Return rows as a table that satisfies the contract."""
    samples = CONTRACTS[modality].rows(list(rows))
    assert CONTRACTS[modality].violations(samples) == {}
    return samples
