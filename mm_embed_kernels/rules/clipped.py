from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Clipped(Rule):
    """A recording driven into its limits: too many samples stand at full scale."""

    name = "clipped"
    modalities = ("audio",)
    columns = ("clipping_share",)

    # Normalising to full scale leaves single samples there; one in a thousand, 44 a second, is distortion that one hears.
    max_clipping_share: float = 0.001

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["clipping_share"]
        return Verdict(pc.less_equal(share, self.max_clipping_share), pc.round(share, 5), "is clipped")
