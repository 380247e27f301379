"""Rule `too_brief`: duration of a recording or video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooBrief(Rule):
    """A recording or video too brief to identify its content."""

    name = "too_brief"
    modalities = ("audio", "video")
    columns = ("duration",)

    # Four spectral frames of the embedder (46 ms, half overlapping); fewer show no change of the sound.
    min_seconds: float = 0.1

    def judge(self, batch: pa.Table) -> Verdict:
        duration = batch["duration"]
        return Verdict(pc.greater_equal(duration, self.min_seconds), pc.round(duration, 3), "is too brief")
