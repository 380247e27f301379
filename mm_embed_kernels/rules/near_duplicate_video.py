from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.rules.duplicates import MATCH, NearDuplicateRule
from mm_embed_kernels.similarity import lsh
from mm_embed_kernels.similarity.frame_hashes import shared, unpacked
from mm_embed_kernels.sql import CellReader

# Who shares a scene has frames whose hashes differ in one byte at most.
_BYTES = 1


@dataclass
class NearDuplicateVideo(NearDuplicateRule):
    """The same pictures in the same order as in another sample of the cell, or a part of it, such as a trailer inside a film.

    Difference hashes of frames with temporal agreement, see `frame_hashes`. What is shared must be `min_seconds` long and
    `min_share` of the shorter video.
    """

    name = "near_duplicate_video"
    modalities = ("video",)
    columns = ("sample_id", "key", "duration", "frame_hashes")
    compared = ("frame_hashes",)
    extent = "duration"
    kind = "near_video"
    reason = "shows the same as another sample"
    cost = 8

    min_seconds: float = 1.5
    min_share: float = 0.5

    def matches(self, read: CellReader) -> Iterator[pa.Table]:
        def entries() -> Iterator[pa.RecordBatch]:
            for batch in read(["frame_hashes"]):
                for number, data in zip(
                    batch["n"].to_pylist(), batch["frame_hashes"].to_pylist(), strict=True
                ):
                    if data:
                        found = np.unique(lsh.shared_bytes(np.unique(unpacked(data)["hash"]), _BYTES))
                        yield lsh.entries(np.array([number]), found[None])

        for pairs in lsh.compared(entries(), read, ["duration", "frame_hashes"]):
            rows = [
                {"a": pair["a"], "b": pair["b"], **found}
                for pair in pairs.to_pylist()
                if (found := self._match(pair))
            ]
            yield pa.Table.from_pylist(rows, schema=MATCH)

    def _match(self, pair: dict[str, Any]) -> dict[str, Any] | None:
        found = shared(unpacked(pair["x_frame_hashes"]), unpacked(pair["y_frame_hashes"]))
        lengths = (pair["x_duration"], pair["y_duration"])
        if found is None or found.one[1] - found.one[0] < max(
            self.min_seconds, self.min_share * min(lengths)
        ):
            return None
        spans = [
            None if last - first >= 0.9 * length else span_of(first, last)
            for (first, last), length in zip((found.one, found.other), lengths, strict=True)
        ]
        return {"score": found.score, "span_a": spans[0], "span_b": spans[1]}
