"""Rule `little_speech`: share of speech (Silero VAD)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Action, Rule, Verdict


@dataclass
class LittleSpeech(Rule):
    """A recording with little speech by Silero VAD. Off by default, since most sounds are no speech."""

    name = "little_speech"
    modalities = ("audio",)
    columns = ("speech_share",)

    action: Action = "off"
    min_speech_share: float = 0.2

    def judge(self, batch: pa.Table) -> Verdict:
        share = batch["speech_share"]
        return Verdict(
            pc.greater_equal(share, self.min_speech_share),
            pc.round(share, 4),
            "holds too little speech",
        )
