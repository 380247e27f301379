"""Rule `boilerplate`: lines of web boilerplate (Raffel et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Boilerplate(Rule):
    """Text with many lines of web boilerplate: cookies, terms, JavaScript, lorem ipsum.

    Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 2.2, whose C4 drops each such
    line.
    """

    name = "boilerplate"
    modalities = ("text",)
    columns = ("boilerplate_share",)

    max_boilerplate_share: float = 0.3

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["boilerplate_share"]
        return Verdict(
            pc.less_equal(share, self.max_boilerplate_share), pc.round(share, 4), "is mostly boilerplate"
        )
