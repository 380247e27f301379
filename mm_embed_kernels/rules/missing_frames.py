from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class MissingFrames(Rule):
    """A video of whose frames the container speaks, but which are not there."""

    name = "missing_frames"
    modalities = ("video",)
    columns = ("frames", "stated_frames")

    # Edit lists and writers that count the last frame twice leave out a frame or two of a short clip.
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
