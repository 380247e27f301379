"""Rule `clipped`: samples at full scale."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Clipped(Rule):
    """A recording with too many samples at full scale."""

    name = "clipped"
    modalities = ("audio",)
    columns = ("clipping_share",)

    # Normalizing to full scale leaves single samples there; one in a thousand, 44 a second, is audible
    # distortion.
    max_clipping_share: float = 0.001

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["clipping_share"]
        return Verdict(pc.less_equal(share, self.max_clipping_share), pc.round(share, 5), "is clipped")
