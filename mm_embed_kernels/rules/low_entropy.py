"""Rule `low_entropy`: Shannon entropy of the luma histogram."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class LowEntropy(Rule):
    """A picture of few tones, such as a drawing or a blank page, by the entropy of its luma in bits."""

    name = "low_entropy"
    modalities = ("image",)
    columns = ("entropy",)

    min_entropy: float = 3.0

    def judge(self, batch: pa.Table) -> Verdict:
        entropy = batch["entropy"]
        return Verdict(pc.greater_equal(entropy, self.min_entropy), pc.round(entropy, 2), "has few tones")
