"""Previews from the sandbox, whose answers are plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.base import PREVIEW_SIDE, Modality, Preview

# Pictures that stand side by side in a preview, and values of all together.
_MOST_FRAMES = 8
_MOST_VALUES = 3 * _MOST_FRAMES * PREVIEW_SIDE**2


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
    picture, wave, frames = answer["picture"], answer["wave"], answer["frames"] or 1
    fits = picture is None or (picture.ndim == 3 and picture.dtype == np.uint8 and picture.shape[2] == 3)
    fits = fits and (picture is None or 0 < picture.size <= _MOST_VALUES)
    fits = fits and (wave is None or (wave.ndim == 1 and wave.dtype.kind == "f"))
    if not fits or not 1 <= frames <= _MOST_FRAMES:
        return SampleError("bad_answer", "the decoder answered a preview of other shapes")
    return Preview(picture, wave, answer["text"], frames)
