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

# A shared part that leaves out less than this at its ends is the whole: codecs pad and prime.
_SLACK_SECONDS = 0.25


@dataclass
class NearDuplicateAudio(NearDuplicateRule):
    """The same recording as another sample of the cell, coded otherwise, or a part of it: their acoustic fingerprints agree.

    Haitsma and Kalker, "A highly robust audio fingerprinting system" (2002), whose authors take 65% of equal bits for the same
    sound. Sounds of less than a second have too few bits to go by. Of 50 clips of speech in four codings each, down to MP3 at
    32 kbit/s and Opus at 24, 95% of the pairs were found and no two recordings were mixed up; of game sounds of a second, 80%.
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

        for pairs in lsh.compared(entries(), read, ["fingerprint"]):
            rows = [
                {"a": a, "b": b, **found}
                for a, b, x, y in zip(*(column.to_pylist() for column in pairs.columns), strict=True)
                if (found := self._match(np.frombuffer(x, "<u4"), np.frombuffer(y, "<u4")))
            ]
            yield pa.Table.from_pylist(rows, schema=MATCH)

    def _match(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, Any] | None:
        found = acoustic_fingerprint.overlap(one, other)
        least = max(
            self.min_seconds / acoustic_fingerprint.STEP_SECONDS,
            self.min_share * min(np.count_nonzero(one), np.count_nonzero(other)),
        )
        if found is None or found.score < self.min_similarity or found.sounding < least:
            return None
        spans = {
            "span_a": _part(found.first, found.length, len(one)),
            "span_b": _part(found.second, found.length, len(other)),
        }
        return {"score": found.score, **spans}


def _part(start: int, length: int, whole: int) -> str | None:
    """The seconds of a shared part, or None where it is all."""
    if (whole - length) * acoustic_fingerprint.STEP_SECONDS < _SLACK_SECONDS:
        return None
    return span_of(
        start * acoustic_fingerprint.STEP_SECONDS, (start + length) * acoustic_fingerprint.STEP_SECONDS
    )
