"""Rule `missing_frames`: stated against existing frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class MissingFrames(Rule):
    """A video whose container states more frames than the file holds."""

    name = "missing_frames"
    modalities = ("video",)
    columns = ("frames", "stated_frames")

    # Edit lists, and writers that count the last frame twice, make a short clip lack a frame or two.
    max_missing_share: float = 0.05

    def judge(self, batch: pa.Table) -> Verdict:
        stated = pc.cast(batch["stated_frames"], pa.float64())
        missing = pc.max_element_wise(
            pc.subtract(1.0, pc.divide(batch["frames"], pc.max_element_wise(stated, 1.0))),
            0.0,
            skip_nulls=False,
        )
        return Verdict(
            pc.less_equal(missing, self.max_missing_share),
            pc.round(missing, 4),
            "lacks frames of which its container speaks",
        )
