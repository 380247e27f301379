"""Rule `frozen`: share of frames without a change."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Frozen(Rule):
    """A video in which almost all frames repeat the one before."""

    name = "frozen"
    modalities = ("video",)
    columns = ("frozen_share",)

    # With a change in every twentieth frame it is a slide show; with fewer, a picture with a sound track.
    max_frozen_share: float = 0.95

    def judge(self, batch: pa.Table) -> Verdict:
        frozen = batch["frozen_share"]
        return Verdict(
            pc.less_equal(frozen, self.max_frozen_share), pc.round(frozen, 4), "hardly changes its picture"
        )
