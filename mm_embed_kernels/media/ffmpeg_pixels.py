"""Pixels of a picture that FFmpeg (PyAV) has decoded, as RGB of 8 bits in sRGB over white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.media.deep_samples import linear_to_srgb, range_scale
from mm_embed_kernels.media.pixels import bands_of, to_rgb

if TYPE_CHECKING:
    from PIL import Image

# Formats whose floats are light, not what a screen shows.
_LINEAR = ("exr", "hdr", "psd")


def frame_to_rgb(frame: Any, codec: str) -> Image.Image:
    """Return a frame of FFmpeg (`av.VideoFrame`) as RGB."""
    from PIL import Image

    if "f32" not in frame.format.name and "f16" not in frame.format.name:
        return to_rgb(Image.fromarray(frame.to_ndarray(format="rgba"), "RGBA"))
    layers = frame.reformat(format="gbrapf32le" if "gbrap" in frame.format.name else "gbrpf32le")
    # A PFM begins with its lowest row, as the memory of its frame does, which its layout turns.
    turn = [slice(None, None, -1 if plane.line_size < 0 else 1) for plane in layers.planes]

    def rows(top: int, bottom: int) -> Any:
        """Return the samples of some rows, float64 [rows, width, 3 or 4]."""
        order = (2, 0, 1, 3)[: len(layers.planes)]
        bands = (
            np.frombuffer(layers.planes[place], np.float32).reshape(frame.height, -1)[turn[place]]
            for place in order
        )
        return np.stack([band[top:bottom, : frame.width] for band in bands], axis=-1).astype(np.float64)

    def light(top: int, bottom: int) -> Any:
        samples = rows(top, bottom)
        if samples.shape[-1] > 3:
            # An OpenEXR's colors are multiplied by its alpha.
            samples[..., :3] += 1 - np.clip(np.nan_to_num(samples[..., 3:]), 0.0, 1.0)
        return linear_to_srgb(samples[..., :3])

    places = list(bands_of(frame.width, frame.height))
    if codec not in _LINEAR:
        scale = range_scale(lambda: (rows(*place)[..., :3] for place in places))
    rgb = Image.new("RGB", (frame.width, frame.height))
    for place in places:
        pixels = light(*place) if codec in _LINEAR else scale(rows(*place)[..., :3])
        rgb.paste(Image.fromarray(pixels), (0, place[0]))
    return rgb
