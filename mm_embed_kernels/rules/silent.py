"""Rule `silent`: share of silence."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Silent(Rule):
    """A recording that is nearly all below -60 dBFS."""

    name = "silent"
    modalities = ("audio",)
    columns = ("silence_share",)

    # One short sound in a minute of silence is still a sample of that sound.
    max_silence_share: float = 0.99

    def judge(self, batch: pa.Table) -> Verdict:
        silence = batch["silence_share"]
        return Verdict(
            pc.less_equal(silence, self.max_silence_share), pc.round(silence, 4), "is almost all silence"
        )
