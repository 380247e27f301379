"""Previews from the sandbox, whose answers are plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.base import Modality, Preview


class Previewer:
    """A modality's `preview` as a dict; picklable."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, data: Media) -> dict[str, Any]:
        """Render one blob, inside the sandbox."""
        return vars(self.modality.preview(data))  # type: ignore[arg-type]


def read_preview(answer: Any) -> Preview | SampleError:
    """Return what a `Previewer` has answered; it is not trusted to have done so."""
    if isinstance(answer, SampleError):
        return answer
    types = {"picture": np.ndarray, "wave": np.ndarray, "text": str, "frames": int}
    known = isinstance(answer, dict) and answer.keys() == types.keys()
    if not known or not all(isinstance(answer[name], (kind, type(None))) for name, kind in types.items()):
        return SampleError("bad_answer", "the decoder answered no preview")
    return Preview(answer["picture"], answer["wave"], answer["text"], answer["frames"] or 1)
