"""Rule `animated`: an image with several frames."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Animated(Rule):
    """An animation; only its first frame is embedded."""

    name = "animated"
    modalities = ("image",)
    columns = ("frames",)

    max_frames: int = 1

    def judge(self, batch: pa.Table) -> Verdict:
        frames = batch["frames"]
        return Verdict(pc.less_equal(frames, self.max_frames), frames, "is an animation")
