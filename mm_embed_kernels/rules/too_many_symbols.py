"""Rule `too_many_symbols`: share of symbols (after Rae et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class TooManySymbols(Rule):
    """Text with many symbols, such as code or drawings (after the symbol ratio of Rae et al., 2021)."""

    name = "too_many_symbols"
    modalities = ("text",)
    columns = ("symbol_share",)

    max_symbol_share: float = 0.3

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["symbol_share"]
        return Verdict(
            pc.less_equal(share, self.max_symbol_share), pc.round(share, 4), "has too many symbols"
        )
