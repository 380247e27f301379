"""Rule `unsupported_language`: language that the embedder was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class UnsupportedLanguage(Rule):
    """Text in a language, detected with some confidence, that is not one of `languages`.

    Of 500 beginnings of English sentences of one to eight words two are taken for another language with a
    probability of 0.5; the threshold holds for short texts, too.
    """

    name = "unsupported_language"
    modalities = ("text",)
    columns = ("language", "language_confidence", "characters")
    version = "2"
    cost = 2

    languages: str = "en"
    min_confidence: float = 0.5
    min_characters: int = 2

    def judge(self, batch: pa.Table) -> Verdict:
        allowed = [code.strip() for code in self.languages.split(",")]
        supported = pc.is_in(batch["language"], value_set=pa.array(allowed, pa.string()))
        unsure = pc.or_(
            pc.less(batch["language_confidence"], self.min_confidence),
            pc.less(batch["characters"], self.min_characters),
        )
        passed = pc.or_kleene(pc.or_(supported, pc.is_null(batch["language"])), unsure)
        return Verdict(passed, batch["language"], f"is not in one of the languages {', '.join(allowed)}")
