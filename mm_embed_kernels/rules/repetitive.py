"""Rule `repetitive`: repeated lines and word sequences (Rae et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Repetitive(Rule):
    """Text with many repeated lines or repeated sequences of five words.

    Rae et al., "Scaling Language Models" (2021), table A1.
    """

    name = "repetitive"
    modalities = ("text",)
    columns = ("duplicate_line_share", "repeated_5gram_share", "words")

    max_duplicate_line_share: float = 0.3
    max_repeated_5gram_share: float = 0.15
    # A refrain in a few words is no repetition.
    min_words: int = 20

    def judge(self, batch: pa.Table) -> Verdict:
        lines = pc.less_equal(batch["duplicate_line_share"], self.max_duplicate_line_share)
        sequences = pc.less_equal(batch["repeated_5gram_share"], self.max_repeated_5gram_share)
        passed = pc.or_kleene(pc.and_kleene(lines, sequences), pc.less(batch["words"], self.min_words))
        most = pc.max_element_wise(batch["duplicate_line_share"], batch["repeated_5gram_share"])
        return Verdict(passed, pc.round(most, 4), "repeats itself")
