"""Rule `uncertain_language`: confidence of the detected language (CCNet, FineWeb)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class UncertainLanguage(Rule):
    """Text of some length whose language is uncertain: noise, names, a mixture of languages.

    As Wenzek et al., "CCNet" (2020), with the threshold of Penedo et al., "FineWeb" (2024).
    """

    name = "uncertain_language"
    modalities = ("text",)
    columns = ("language_confidence", "characters")

    min_confidence: float = 0.65
    min_characters: int = 50

    def judge(self, batch: pa.Table) -> Verdict:
        confidence = batch["language_confidence"]
        passed = pc.or_kleene(
            pc.greater_equal(confidence, self.min_confidence),
            pc.less(batch["characters"], self.min_characters),
        )
        return Verdict(passed, pc.round(confidence, 4), "is in no certain language")
