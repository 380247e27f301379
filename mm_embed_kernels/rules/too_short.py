"""Rule `too_short`: number of words (Raffel et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooShort(Rule):
    """Text too short to have a meaning of its own; C4 drops lines of less than three words."""

    name = "too_short"
    modalities = ("text",)
    columns = ("words",)

    min_words: int = 3

    def judge(self, batch: pa.Table) -> Verdict:
        return Verdict(pc.greater_equal(batch["words"], self.min_words), batch["words"], "has too few words")
