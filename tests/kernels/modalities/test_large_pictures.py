"""Large pictures: layers and samples of 32 bits are converted in bands, equal to the whole, in bounded memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media import pixels
from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    from PIL import Image

# Four bytes a pixel decoded, of which all samples as float64, with masks and shares, took fifty.
MEMORY = 800 << 20
SIDE = 5_000


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def ramp(dtype: Any, top: float) -> Any:
    """Return samples from 0 to `top` from left to right: 127.5 in the mean, as 8 bits."""
    return np.tile(np.linspace(0, top, SIDE).astype(dtype), (SIDE, 1))


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_a_large_picture_of_deep_samples_fits_into_a_child(mode: str) -> None:
    from PIL import Image

    kind, top = {"F": (np.float32, 1.0), "I": (np.int32, 65_535), "I;16": (np.uint16, 65_535)}[mode]
    data = encode(Image.fromarray(ramp(kind, top)), "TIFF", compression="tiff_adobe_deflate")
    sandbox = Sandbox(Limits(memory_bytes=MEMORY))
    try:
        (row,) = sandbox.map(get("image").probe, [(data,)])
    finally:
        sandbox.close()
    assert isinstance(row, dict), row
    assert (row["width"], row["height"]) == (SIDE, SIDE)
    assert row["brightness"] == pytest.approx(127.5, abs=0.6)


def test_the_bands_of_a_picture_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image, ImageCms

    dice = np.random.default_rng(3)
    heights = dice.normal(100, 60, (97, 61)).astype(np.float32)
    heights[5:9] = np.nan
    layered = Image.fromarray(dice.integers(0, 256, (97, 61, 4), np.uint8), "RGBA")
    colors = Image.fromarray(dice.integers(0, 256, (97, 61, 3), np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    files = [
        encode(Image.fromarray(heights), "TIFF"),
        encode(Image.fromarray(dice.integers(0, 2**31 - 1, (97, 61)).astype(np.int32)), "TIFF"),
        encode(Image.fromarray(dice.integers(0, 65_536, (97, 61)).astype(np.uint16)), "PNG"),
        encode(layered, "PNG"),
        encode(layered.quantize(), "PNG", transparency=3),
        encode(colors.convert("CMYK"), "TIFF"),
        encode(colors.convert("LAB"), "TIFF", icc_profile=profile),
        encode(colors.convert("1"), "PNG"),
        encode(colors, "WEBP", lossless=True),
    ]
    whole = [read_picture(data, 512).rgb for data in files]
    monkeypatch.setattr(pixels, "_BAND_PIXELS", 1_000)
    bands = [read_picture(data, 512).rgb for data in files]
    for one, other in zip(whole, bands, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("head", [b"PF\n12000 10000\n-1.0\n", b"P7\nWIDTH 12000\nHEIGHT 10000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"])  # fmt: skip
def test_a_picture_that_ffmpeg_would_need_too_much_memory_for_is_refused_by_name(head: bytes) -> None:
    with pytest.raises(SampleError, match="too_large: 12,000 x 10,000 = 120,000,000 pixels"):
        read_picture(head + bytes(3_000_000), 512)
