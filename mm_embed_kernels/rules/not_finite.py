"""Rule `not_finite`: samples of a float recording that are no numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class NotFinite(Rule):
    """A recording with samples that are NaN or infinite: the program that wrote it has a fault."""

    name = "not_finite"
    modalities = ("audio",)
    columns = ("not_finite_share",)

    max_not_finite_share: float = 0.0

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["not_finite_share"]
        return Verdict(
            pc.less_equal(share, self.max_not_finite_share),
            pc.round(share, 6),
            "holds samples that are NaN or infinite",
        )
