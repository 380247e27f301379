"""Rule `near_duplicate_audio`: matching acoustic fingerprints (Haitsma and Kalker, 2002)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

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
    from 65% of equal bits. Agreement is counted over steps in which the sound changes, and beyond that of
    bits which never change (`min_kappa`), so that a hum or reverberation is no likeness. Sounds of less than
    a second have too few bits for a decision. `benchmarks/look_alikes.py` measures precision and recall.
    """

    name = "near_duplicate_audio"
    version: ClassVar[str] = "2"
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
    min_kappa: float = 0.35

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        # Buckets of each recording that has a fingerprint: those that are compared, and all.
        sizes: dict[int, tuple[int, int]] = {}

        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["fingerprint"]):
                for number, data in zip(
                    batch["n"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True
                ):
                    if data:
                        kept, whole = acoustic_fingerprint.buckets(np.frombuffer(data, "<u4"))
                        sizes[number] = len(kept), whole
                        yield lsh.entries(np.array([number]), kept[None])

        def least(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            pairs = zip(a.tolist(), b.tolist(), strict=True)
            both = np.array([(sizes[one], sizes[other]) for one, other in pairs], np.float64)
            both = both.reshape(-1, 2, 2)
            return acoustic_fingerprint.least_shared(both[:, :, 0], both[:, :, 1])

        for pairs in lsh.candidate_pairs(entries(), read, ["duration", "fingerprint"], least):
            rows = [
                {"a": pair["a"], "b": pair["b"], **match}
                for pair in pairs.to_pylist()
                if (match := self._match(pair))
            ]
            yield pa.Table.from_pylist(rows, schema=MATCH)

    def _match(self, pair: dict[str, Any]) -> dict[str, Any] | None:
        """Return score and spans of a candidate pair that shares enough; else None."""
        one, other = (np.frombuffer(pair[f"{side}_fingerprint"], "<u4") for side in "xy")
        shared = acoustic_fingerprint.overlap(one, other)
        least = max(
            self.min_seconds / acoustic_fingerprint.STEP_SECONDS,
            self.min_share * min(np.count_nonzero(one), np.count_nonzero(other)),
        )
        if (
            shared is None
            or shared.score < self.min_similarity
            or shared.kappa < self.min_kappa
            or shared.sounding < least
        ):
            return None
        spans = {
            "span_a": _part(shared.first, shared.length, len(one), pair["x_duration"]),
            "span_b": _part(shared.second, shared.length, len(other), pair["y_duration"]),
        }
        return {"score": shared.score, **spans}


def _part(start: int, length: int, whole: int, duration: float) -> str | None:
    """Return the span of a shared part, or None where it is the whole recording."""
    if (whole - length) * acoustic_fingerprint.STEP_SECONDS < _SLACK_SECONDS:
        return None
    first, last = (acoustic_fingerprint.second_of(step, whole, duration) for step in (start, start + length))
    return span_of(first, min(last, duration))
