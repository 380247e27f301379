"""Rule `empty`: text without content."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Action, Rule, Verdict


@dataclass
class Empty(Rule):
    """Text of white space alone."""

    name = "empty"
    modalities = ("text",)
    columns = ("characters",)
    cost = 0

    action: Action = "drop"

    def judge(self, batch: pa.Table) -> Verdict:
        return Verdict(pc.greater(batch["characters"], 0), batch["characters"], "has no characters")
