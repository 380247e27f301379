"""Rule `blurred`: variance of the Laplacian (Pech-Pacheco et al., 2000)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class Blurred(Rule):
    """A picture without sharp edges, by the variance of its Laplacian at 256 pixels.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (2000).
    """

    name = "blurred"
    modalities = ("image",)
    columns = ("sharpness",)

    min_sharpness: float = 20.0

    def judge(self, batch: pa.Table) -> Verdict:
        measured = batch["sharpness"]
        return Verdict(pc.greater_equal(measured, self.min_sharpness), pc.round(measured, 2), "is blurred")
