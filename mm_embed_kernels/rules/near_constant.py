"""Rule `near_constant`: standard deviation of luma."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class NearConstant(Rule):
    """A picture of almost one tone, by the standard deviation of its luma."""

    name = "near_constant"
    modalities = ("image",)
    columns = ("contrast",)

    min_contrast: float = 4.0

    def judge(self, batch: pa.Table) -> Verdict:
        contrast = batch["contrast"]
        return Verdict(
            pc.greater_equal(contrast, self.min_contrast), pc.round(contrast, 2), "is of almost one tone"
        )
