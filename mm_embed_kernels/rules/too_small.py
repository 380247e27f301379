"""Rule `too_small`: shorter side of an image or video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooSmall(Rule):
    """A picture whose shorter side has too few pixels for a model trained on photographs."""

    name = "too_small"
    modalities = ("image", "video")
    columns = ("width", "height")

    min_side: int = 64

    def judge(self, batch: pa.Table) -> Verdict:
        side = pc.min_element_wise(batch["width"], batch["height"])
        return Verdict(pc.greater_equal(side, self.min_side), side, "has too few pixels on its shorter side")
