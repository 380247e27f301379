"""Rule `near_duplicate_audio`: matching acoustic fingerprints (Haitsma and Kalker, 2002)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.rules.duplicates import MATCH, NearDuplicateRule
from mm_embed_kernels.similarity import acoustic_fingerprint, lsh
from mm_embed_kernels.sql import CellReader

# A shared part that misses less than this at its ends is the whole recording, since codecs pad and prime.
_SLACK_SECONDS = 0.25


@dataclass
class NearDuplicateAudio(NearDuplicateRule):
    """A recording of which another sample of the cell holds all or a part, maybe in another codec.

    Haitsma and Kalker, "A highly robust audio fingerprinting system" (2002), who consider sounds the same
    from 65% of equal bits. Sounds of less than a second have too few bits for a decision. Of 50 clips of
    speech in four codings each, down to MP3 at 32 kbit/s and Opus at 24, 95% of the pairs were detected and
    no two recordings were confused; of game sounds of a second, 80%.
    """

    name = "near_duplicate_audio"
    modalities = ("audio",)
    columns = ("sample_id", "key", "duration", "fingerprint")
    compared = ("fingerprint",)
    extent = "duration"
    kind = "near_audio"
    reason = "is the same recording as another sample"
    cost = 8

    min_similarity: float = 0.7
    min_seconds: float = 1.0
    min_share: float = 0.5

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["fingerprint"]):
                for number, data in zip(
                    batch["n"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True
                ):
                    if data:
                        yield lsh.entries(
                            np.array([number]), acoustic_fingerprint.buckets(np.frombuffer(data, "<u4"))[None]
                        )

        for pairs in lsh.candidate_pairs(entries(), read, ["fingerprint"]):
            rows = [
                {"a": a, "b": b, **match}
                for a, b, x, y in zip(*(column.to_pylist() for column in pairs.columns), strict=True)
                if (match := self._match(np.frombuffer(x, "<u4"), np.frombuffer(y, "<u4")))
            ]
            yield pa.Table.from_pylist(rows, schema=MATCH)

    def _match(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, Any] | None:
        """Return score and spans of two fingerprints, uint32 [n], that share enough; else None."""
        shared = acoustic_fingerprint.overlap(one, other)
        least = max(
            self.min_seconds / acoustic_fingerprint.STEP_SECONDS,
            self.min_share * min(np.count_nonzero(one), np.count_nonzero(other)),
        )
        if shared is None or shared.score < self.min_similarity or shared.sounding < least:
            return None
        spans = {
            "span_a": _part(shared.first, shared.length, len(one)),
            "span_b": _part(shared.second, shared.length, len(other)),
        }
        return {"score": shared.score, **spans}


def _part(start: int, length: int, whole: int) -> str | None:
    """Return the span of a shared part, or None where it is the whole recording."""
    if (whole - length) * acoustic_fingerprint.STEP_SECONDS < _SLACK_SECONDS:
        return None
    return span_of(
        start * acoustic_fingerprint.STEP_SECONDS, (start + length) * acoustic_fingerprint.STEP_SECONDS
    )
