from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class LowSampleRate(Rule):
    """A recording that holds less than half of what is heard: below 16 kHz, which speech models and embedders read."""

    name = "low_sample_rate"
    modalities = ("audio",)
    columns = ("sample_rate",)

    min_sample_rate: int = 16000

    def judge(self, batch: pa.Table) -> Verdict:
        measured = batch["sample_rate"]
        return Verdict(
            pc.greater_equal(measured, self.min_sample_rate), measured, "has too low a sample rate"
        )
