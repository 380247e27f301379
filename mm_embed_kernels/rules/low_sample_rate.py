"""Rule `low_sample_rate`: sample rate of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class LowSampleRate(Rule):
    """A recording below 16 kHz, the rate of speech models: less than half of the audible band."""

    name = "low_sample_rate"
    modalities = ("audio",)
    columns = ("sample_rate",)

    min_sample_rate: int = 16000

    def judge(self, batch: pa.Table) -> Verdict:
        rate = batch["sample_rate"]
        return Verdict(pc.greater_equal(rate, self.min_sample_rate), rate, "has too low a sample rate")
