"""Rule `too_many_digits`: share of digits (after Rae et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooManyDigits(Rule):
    """Text with many digits, such as a table or a log (after the alphabetic ratio of Rae et al., 2021)."""

    name = "too_many_digits"
    modalities = ("text",)
    columns = ("digit_share",)

    max_digit_share: float = 0.3

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["digit_share"]
        return Verdict(pc.less_equal(share, self.max_digit_share), pc.round(share, 4), "has too many digits")
