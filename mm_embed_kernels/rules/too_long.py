"""Rule `too_long`: number of words (Rae et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooLong(Rule):
    """Text of over 100,000 words (Rae et al., "Scaling Language Models", 2021, appendix A)."""

    name = "too_long"
    modalities = ("text",)
    columns = ("words",)

    max_words: int = 100000

    def judge(self, batch: pa.Table) -> Verdict:
        words = batch["words"]
        return Verdict(pc.less_equal(words, self.max_words), words, "has too many words")
