"""Rule `badly_exposed`: mean luma of an image."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class BadlyExposed(Rule):
    """A picture that is almost all dark or almost all bright: its mean luma."""

    name = "badly_exposed"
    modalities = ("image",)
    columns = ("brightness",)

    min_brightness: float = 20.0
    max_brightness: float = 240.0

    def judge(self, batch: pa.Table) -> Verdict:
        brightness = batch["brightness"]
        passed = pc.and_kleene(
            pc.greater_equal(brightness, self.min_brightness), pc.less_equal(brightness, self.max_brightness)
        )
        return Verdict(passed, pc.round(brightness, 2), "is too dark or too bright")
