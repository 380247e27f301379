"""Rule `near_duplicate_video`: frame hashes with temporal agreement (Douze, Jegou and Schmid, 2010)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.rules.duplicates import MATCH, NearDuplicateRule
from mm_embed_kernels.similarity import frame_hashes, lsh
from mm_embed_kernels.sql import CellReader

# Videos that share a scene have frames whose hashes differ in one byte at most.
_BYTES = 1


@dataclass
class NearDuplicateVideo(NearDuplicateRule):
    """A video that shows what another sample of the cell shows, or a part of it, such as a trailer of a film.

    Difference hashes of frames with temporal agreement; see `frame_hashes`. The shared part must have
    `min_seconds` and `min_share` of the shorter video, and agree beyond what never changes (`min_kappa`), so
    that one camera's films of different days are different.
    """

    name = "near_duplicate_video"
    version: ClassVar[str] = "3"
    modalities = ("video",)
    columns = ("sample_id", "key", "duration", "frame_hashes")
    compared = ("frame_hashes",)
    extent = "duration"
    kind = "near_video"
    reason = "shows the same as another sample"
    cost = 8

    min_seconds: float = 1.5
    min_share: float = 0.5
    min_kappa: float = 0.45

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["frame_hashes"]):
                for number, data in zip(
                    batch["n"].to_pylist(), batch["frame_hashes"].to_pylist(), strict=True
                ):
                    if data:
                        buckets = np.unique(
                            lsh.byte_buckets(np.unique(frame_hashes.unpack_frames(data)["hash"]), _BYTES)
                        )
                        yield lsh.entries(np.array([number]), buckets[None])

        for pairs in lsh.candidate_pairs(entries(), read, ["duration", "frame_hashes"]):
            rows = [
                {"a": pair["a"], "b": pair["b"], **match}
                for pair in pairs.to_pylist()
                if (match := self._match(pair))
            ]
            yield pa.Table.from_pylist(rows, schema=MATCH)

    def _match(self, pair: dict[str, Any]) -> dict[str, Any] | None:
        """Return score and spans of a candidate pair that shares enough; else None."""
        shared = frame_hashes.overlap(
            frame_hashes.unpack_frames(pair["x_frame_hashes"]),
            frame_hashes.unpack_frames(pair["y_frame_hashes"]),
        )
        lengths = (pair["x_duration"], pair["y_duration"])
        least = max(self.min_seconds, self.min_share * min(lengths))
        if shared is None or shared.kappa < self.min_kappa or shared.one[1] - shared.one[0] < least:
            return None
        spans = [
            None if last - first >= 0.9 * length else span_of(first, last)
            for (first, last), length in zip((shared.one, shared.other), lengths, strict=True)
        ]
        return {"score": shared.score, "span_a": spans[0], "span_b": spans[1]}
