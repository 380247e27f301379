from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class LowEntropy(Rule):
    """A picture of few tones: drawings, screenshots, blank pages (Shannon entropy of its luma, bits)."""

    name = "low_entropy"
    modalities = ("image",)
    columns = ("entropy",)

    min_entropy: float = 3.0

    def judge(self, batch: pa.Table) -> Verdict:
        measured = batch["entropy"]
        return Verdict(pc.greater_equal(measured, self.min_entropy), pc.round(measured, 2), "has few tones")
