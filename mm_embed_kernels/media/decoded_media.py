"""Media decoded for training, as arrays: a picture, a span of a sound, frames of a span of a film."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.frames import open_frames
from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import seconds_of

# Hz of decoded sound, which models of speech and sound events read; frames of a film.
RATE, FRAMES = 16_000, 8
# Longer than any side: a picture is decoded at its own size.
_ANY_SIDE = 1 << 20
_FULL = "full"


def decode_picture(data: bytes, span: str) -> np.ndarray[Any, Any]:  # noqa: ARG001 - a picture has no spans
    """Return a picture, uint8 [height, width, 3]: RGB in sRGB, upright, over white.

    Raises:
        SampleError: as `read_picture`; also for a damaged one.
    """
    picture = read_picture(data, _ANY_SIDE)
    if picture.defect:
        raise picture.defect
    return np.asarray(picture.rgb)


def decode_sound(data: Media, span: str) -> np.ndarray[Any, Any]:
    """Return a span of a recording, float32 [samples], mono at `RATE` Hz.

    Raises:
        SampleError: as `open_audio`.
    """
    with open_audio(data) as recording:
        start, end = (0.0, recording.length()) if span == _FULL else seconds_of(span)
        return recording.read(RATE, start, end)


def decode_film(data: Media, span: str) -> np.ndarray[Any, Any]:
    """Return `FRAMES` frames at equal distances of a span of a film, uint8 [frames, height, width, 3].

    Raises:
        SampleError: as `open_frames`.
    """
    with open_frames(data) as frames:
        start, end = (0.0, frames.duration) if span == _FULL else seconds_of(span)
        seconds = start + (np.arange(FRAMES) + 0.5) * (end - start) / FRAMES
        found = list(frames.read([frames.at(second) for second in seconds]))
    if len({frame.shape for frame in found}) != 1:
        raise SampleError("decode_error", f"the frames of {span} cannot be read, or differ in size")
    return np.stack(found)


DECODERS = {"image": decode_picture, "audio": decode_sound, "video": decode_film}
