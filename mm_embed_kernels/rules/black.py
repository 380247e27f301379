"""Rule `black`: share of black frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Black(Rule):
    """A video in which almost all frames are black."""

    name = "black"
    modalities = ("video",)
    columns = ("black_share",)

    # A lamp that is lit once in half a minute is content.
    max_black_share: float = 0.95

    def judge(self, batch: pa.Table) -> Verdict:
        black = batch["black_share"]
        return Verdict(pc.less_equal(black, self.max_black_share), pc.round(black, 4), "is almost all black")
