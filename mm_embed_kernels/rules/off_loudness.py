"""Rule `off_loudness`: integrated loudness (ITU-R BS.1770)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class OffLoudness(Rule):
    """A recording far too quiet or too loud, by its integrated loudness in LUFS; EBU R 128 demands -23."""

    name = "off_loudness"
    modalities = ("audio",)
    columns = ("loudness",)

    min_loudness: float = -50.0
    max_loudness: float = -5.0

    def judge(self, batch: pa.Table) -> Verdict:
        loudness = batch["loudness"]
        passed = pc.and_kleene(
            pc.greater_equal(loudness, self.min_loudness), pc.less_equal(loudness, self.max_loudness)
        )
        return Verdict(passed, pc.round(loudness, 2), "is too quiet or too loud")
