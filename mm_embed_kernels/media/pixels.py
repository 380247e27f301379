"""Pixels as a viewer shows them: RGB of 8 bits in sRGB, transparency over white, turned upright."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.media.deep_samples import Scale, deep_scale

if TYPE_CHECKING:
    from PIL import Image
    from PIL.Image import Transpose

ORIENTATION = 0x0112
# Pixels that are converted at once: all layers of a large picture at once take ten times its memory.
_BAND_PIXELS = 1_000_000
# A profile that moves no color by more than this is sRGB.
_SAME_COLOR = 3
# Exponent of a screen; one that differs by less is the same, as libpng has it; one that differs by more is
# an error of the header.
_SCREEN_GAMMA, _SAME_GAMMA, _MOST_GAMMA = 2.2, 0.05, 10.0


def to_rgb(image: Image.Image, file: Image.Image | None = None) -> Image.Image:
    """Return a loaded image as RGB in sRGB, transparency laid over white.

    Args:
        image: the pixels.
        file: the opened file that they are from, where `image` is a part of it.
    """
    from PIL import Image

    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())  # colors that are multiplied by alpha
    if image.mode == "1" and (file or image).format in ("PSD", "XBM"):
        # A bit that is set is ink, which Pillow reads as light.
        return image.point([255, *[0] * 255], "L").convert("RGB")
    deep = deep_scale(image, file or image) if image.mode.startswith("I") or image.mode == "F" else None
    width, height = image.size
    if width * height <= _BAND_PIXELS:
        return _band_to_rgb(image, deep)
    rgb = Image.new("RGB", image.size)
    for top, bottom in bands_of(width, height):
        rgb.paste(_band_to_rgb(image.crop((0, top, width, bottom)), deep), (0, top))
    return rgb


def bands_of(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Stream the first row, and the one behind the last, of each band of a picture."""
    rows = max(1, _BAND_PIXELS // max(1, width))
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _band_to_rgb(image: Image.Image, deep: Scale | None) -> Image.Image:
    from PIL import Image

    profile = image.info.get("icc_profile")
    curve = _gamma_curve(image.info)
    if deep is not None:
        return _to_srgb(Image.fromarray(deep(np.asarray(image))), profile, curve)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        # A profile of grays is applied to the gray band; white is white in all of them.
        colors = _to_srgb(layered.convert("L" if image.mode in ("L", "LA") else "RGB"), profile, curve)
        colors.putalpha(layered.getchannel("A"))
        return Image.alpha_composite(ground, colors).convert("RGB")
    return _to_srgb(image, profile, curve)


def _gamma_curve(info: dict[Any, Any]) -> list[int] | None:
    """Return the values of a screen for 0 to 255 by the gamma that a PNG states; None where it is a screen's.

    A profile, or the chunk `sRGB`, overrides it (PNG specification, 12.13).
    """
    stated = info.get("gamma")
    if not isinstance(stated, float) or "srgb" in info or info.get("icc_profile"):
        return None
    power = 1 / (_SCREEN_GAMMA * stated) if stated > 0 else 1.0
    if abs(power - 1) < _SAME_GAMMA or not 1 / _MOST_GAMMA <= power <= _MOST_GAMMA:
        return None
    return [round(255 * (value / 255) ** power) for value in range(256)]


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the pixels of an EXIF orientation (1 to 8) as they are displayed."""
    method = _transpose_of(orientation)
    return image if method is None else image.transpose(method)


def turns_aside(orientation: int) -> bool:
    """Return whether an EXIF orientation exchanges width and height."""
    return 5 <= orientation <= 8


def _transpose_of(orientation: int) -> Transpose | None:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def _to_srgb(image: Image.Image, profile: Any, curve: list[int] | None = None) -> Image.Image:
    """Return RGB in sRGB by the image's ICC profile; a profile that does not fit the pixels is ignored.

    Viewers do so, too.

    Args:
        image: the pixels.
        profile: bytes of its profile, or None.
        curve: values by which those of an image without a profile are replaced.
    """
    from PIL import Image, ImageCms

    mode = image.mode if image.mode in ("L", "CMYK", "LAB") else "RGB"
    plain = image if image.mode == mode else image.convert(mode)
    if isinstance(profile, bytes) and profile:
        transform = _transform(profile, mode)
    else:
        transform = _lab_transform() if mode == "LAB" else None
    if transform is None:
        return plain.convert("RGB").point(curve * 3) if curve else plain.convert("RGB")
    colors = Image.new("RGB", plain.size)
    try:
        transform.apply(plain, colors)
    except ImageCms.PyCMSError:
        return plain.convert("RGB")
    return colors


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform of a profile to sRGB; None where it changes nothing, or is not one of the mode."""
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
        probe = Image.fromarray(np.ascontiguousarray(colors))
        seen = np.asarray(ImageCms.applyTransform(probe, transform), np.int16)
        if np.abs(seen - colors).max() <= _SAME_COLOR:
            return None
    return transform


@lru_cache(maxsize=1)
def _lab_transform() -> Any:
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
