from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Action, Rule, Verdict


@dataclass
class LittleSpeech(Rule):
    """A recording in which hardly anybody speaks (Silero VAD). Off by default: most sounds are no speech."""

    name = "little_speech"
    modalities = ("audio",)
    columns = ("speech_share",)

    action: Action = "off"
    min_speech_share: float = 0.2

    def judge(self, batch: pa.Table) -> Verdict:
        measured = batch["speech_share"]
        return Verdict(
            pc.greater_equal(measured, self.min_speech_share),
            pc.round(measured, 4),
            "holds too little speech",
        )
