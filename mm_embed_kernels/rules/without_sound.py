"""Rule `without_sound`: sound track of a video."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Action, Rule, Verdict


@dataclass
class WithoutSound(Rule):
    """A video without a sound track. Off by default, since visual embedders need none."""

    name = "without_sound"
    modalities = ("video",)
    columns = ("audio_codec",)

    action: Action = "off"

    def judge(self, batch: pa.Table) -> Verdict:
        codec = batch["audio_codec"]
        return Verdict(pc.is_valid(codec), codec, "has no sound track")
