"""Rule `damaged_encoding`: replacement characters and mojibake (ftfy)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class DamagedEncoding(Rule):
    """Text once decoded with a wrong encoding: replacement characters, or mojibake by ftfy's `badness`."""

    name = "damaged_encoding"
    modalities = ("text",)
    columns = ("replacement_characters", "mojibake")

    max_replacement_characters: int = 0
    max_mojibake: int = 0

    def judge(self, batch: pa.Table) -> Verdict:
        traces = pc.add(batch["replacement_characters"], batch["mojibake"])
        intact = pc.less_equal(batch["replacement_characters"], self.max_replacement_characters)
        passed = pc.and_kleene(intact, pc.less_equal(batch["mojibake"], self.max_mojibake))
        return Verdict(passed, traces, "was read in a wrong encoding before")
