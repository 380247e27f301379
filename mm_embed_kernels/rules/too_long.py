from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooLong(Rule):
    """Text with more words than a document has (Rae et al., "Scaling Language Models", 2021, appendix A: 100,000)."""

    name = "too_long"
    modalities = ("text",)
    columns = ("words",)

    max_words: int = 100000

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["words"]
        return Verdict(pc.less_equal(share, self.max_words), share, "has too many words")
