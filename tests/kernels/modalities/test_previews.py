"""What a person sees of a sample: small, upright, and nothing that the bytes could make large."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.preview import read_preview
from mm_embed_kernels.modalities import get, modalities
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, PREVIEW_POINTS, PREVIEW_SIDE
from mm_embed_kernels.sandbox.sandbox import call_guarded
from tests.kernels.media_samples import encode_image, picture
from tests.kernels.odd_files import bombs
from tests.kernels.sounds import encode_audio, tone
from tests.kernels.videos import black, encode_video, pan


def test_a_picture_is_small_and_upright() -> None:
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    sink = io.BytesIO()
    picture((800, 400)).convert("RGB").save(sink, "JPEG", exif=turned)
    seen = get("image").preview(sink.getvalue()).picture
    assert seen is not None
    assert (seen.shape, seen.dtype) == ((PREVIEW_SIDE, PREVIEW_SIDE // 2, 3), np.uint8)
    small = get("image").preview(encode_image(picture((30, 20)), "PNG")).picture
    assert small is not None
    assert small.shape == (20, 30, 3)


def test_a_sound_is_its_loudness() -> None:
    faded = tone(seconds=2.0, level=0.8) * np.linspace(1, 0, 2 * 16_000).reshape(-1, *[1] * (tone().ndim - 1))
    wave = get("audio").preview(encode_audio(faded)).wave
    assert wave is not None
    assert len(wave) == PREVIEW_POINTS
    assert 0.7 < wave[:10].max() < 0.9
    assert wave[-10:].max() < 0.1


def test_a_film_is_three_of_its_frames() -> None:
    seen = get("video").preview(encode_video([*pan(seconds=1.0), *[black()] * 24]))
    assert seen.picture is not None
    assert seen.frames == 3
    height, width, _ = seen.picture.shape
    frames = seen.picture.reshape(height, 3, width // 3, 3).transpose(1, 0, 2, 3)
    assert max(height, width // 3) <= PREVIEW_SIDE
    assert frames[0].mean() > 40 > 5 > frames[2].mean(), "the first shows something, the last is black"


def test_a_text_is_its_beginning() -> None:
    assert get("text").preview("café olé ".encode("latin-1") * 3 + b" caf").text is not None
    assert get("text").preview(b"word " * 1_000).text == ("word " * 1_000)[:PREVIEW_CHARS]


@pytest.mark.parametrize("name", list(modalities()))
def test_what_cannot_be_read_is_a_cause(name: str) -> None:
    """Also for media of other kinds, and for what was made to fill memory."""
    for data in [b"\x00\x01\x02\xff" * 50, *bombs().values()]:
        seen: Any = call_guarded(get(name).preview, (data,))
        assert (
            isinstance(seen, SampleError)
            or seen.picture is None
            or max(seen.picture.shape) <= 3 * PREVIEW_SIDE
        )


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"picture": b"x", "wave": None, "text": None, "frames": 1},
        {"picture": np.zeros((4, 4), np.uint8), "wave": None, "text": None, "frames": 1},
        {"picture": np.zeros((4, 4, 3), np.float64), "wave": None, "text": None, "frames": 1},
        {"picture": np.zeros((1 << 40, 0, 3), np.uint8), "wave": None, "text": None, "frames": 1},
        {"picture": np.zeros((4_000, 4_000, 3), np.uint8), "wave": None, "text": None, "frames": 1},
        {"picture": None, "wave": np.zeros((2, 2), np.float32), "text": None, "frames": 1},
        {"picture": None, "wave": np.array(1.0, np.float32), "text": None, "frames": 1},
        {"picture": None, "wave": np.zeros(3, np.complex64), "text": None, "frames": 1},
        {"picture": None, "wave": None, "text": "a", "frames": -3},
        {"picture": None, "wave": None, "text": "a", "frames": 10**12},
    ],
)
def test_an_answer_that_is_no_preview_is_refused(answer: Any) -> None:
    refused = read_preview(answer)
    assert isinstance(refused, SampleError)
    assert refused.error_class == "bad_answer"
