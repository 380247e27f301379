"""Rule `too_few_frames`: number of frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooFewFrames(Rule):
    """A video with too few frames to show a movement."""

    name = "too_few_frames"
    modalities = ("video",)
    columns = ("frames",)

    # Twice the number of frames that the embedder reads in one segment.
    min_frames: int = 8

    def judge(self, batch: pa.Table) -> Verdict:
        return Verdict(
            pc.greater_equal(batch["frames"], self.min_frames), batch["frames"], "has too few frames"
        )
