"""Rule `extreme_aspect`: aspect ratio of an image (Gadre et al., "DataComp", 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class ExtremeAspect(Rule):
    """A picture many times as long as wide, such as a banner or a separator; DataComp's limit is 3."""

    name = "extreme_aspect"
    modalities = ("image",)
    columns = ("width", "height")

    max_aspect: float = 3.0

    def judge(self, batch: pa.Table) -> Verdict:
        width, height = (pc.cast(batch[name], pa.float64()) for name in ("width", "height"))
        aspect = pc.divide(
            pc.max_element_wise(width, height, skip_nulls=False),
            pc.min_element_wise(width, height, skip_nulls=False),
        )
        return Verdict(pc.less_equal(aspect, self.max_aspect), pc.round(aspect, 2), "is too long and narrow")
