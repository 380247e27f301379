"""Pixels as a viewer shows them: RGB of 8 bits in sRGB, transparency over white, turned upright."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from PIL.Image import Transpose

ORIENTATION = 0x0112
# TIFF tags: bits of a sample, the meaning of zero, the type of samples, the smallest and largest one, and
# GDAL's text for "no value".
_BITS, _PHOTOMETRIC, _TYPE, _SMALLEST, _LARGEST, _NODATA = 258, 262, 339, 340, 341, 42_113
# Largest samples where the format states no range, as floats and 32 bits do: 1, or the bits of a camera, ...
_RANGES = (1.0, *(2.0**bits - 1 for bits in (8, 10, 12, 14, 16)))
# ... or all of an integer.
_INTEGER_RANGES = (*_RANGES[1:], 2.0**24 - 1, 2.0**31 - 1, 2.0**32 - 1)
# Floats may exceed white: reflections on shiny things, ringing of a filter. Such a part of the samples, and
# such a multiple of white, still belong to the range.
_BULK, _HIGHLIGHTS = 0.9, {1.0: 4.0, 255.0: 1.25}
# Programs write the largest float, or something near it, for "no value".
_NO_VALUE = 1e30
# Share of the samples at either end that do not count for the range: hot pixels, ringing of a filter.
_OUTSIDE = 0.001
_SAMPLED = 1_000_000
# A profile that moves no color by more than this is sRGB.
_SAME_COLOR = 3


def to_rgb(image: Image.Image, file: Image.Image | None = None) -> Image.Image:
    """Return a loaded image as RGB in sRGB, transparency laid over white.

    Args:
        image: the pixels.
        file: the opened file that they are from, where `image` is a part of it.
    """
    from PIL import Image

    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        return _to_srgb(_scale_deep(image, file or image), profile)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        # A profile of grays is applied to the gray band; white is white in all of them.
        colors = _to_srgb(layered.convert("L" if image.mode in ("L", "LA") else "RGB"), profile)
        colors.putalpha(layered.getchannel("A"))
        return Image.alpha_composite(ground, colors).convert("RGB")
    return _to_srgb(image, profile)


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


def scale_samples(
    pixels: np.ndarray[Any, Any], nodata: float | None = None, ranges: tuple[float, ...] = _RANGES
) -> np.ndarray[Any, Any]:
    """Scale samples to uint8 by the range that their values fit in; what is no value becomes black.

    Values of no range (such as heights below zero) are scaled from their smallest to their largest.

    Args:
        pixels: float64, any shape.
        nodata: the value that stands for none, beside NaN, infinity and the largest floats.
        ranges: largest values of the ranges, ascending; each begins with zero.
    """
    known = np.isfinite(pixels) & (np.abs(pixels) < _NO_VALUE)
    if nodata is not None:
        known &= ~_equal(pixels, nodata)
    values = pixels[known]
    if not values.size:
        return np.zeros(pixels.shape, np.uint8)
    sampled = values[:: max(1, values.size // _SAMPLED)]
    low, bulk, high = (float(item) for item in np.quantile(sampled, (_OUTSIDE, _BULK, 1 - _OUTSIDE)))
    beyond = _HIGHLIGHTS if ranges is _RANGES else {}
    fits = next((top for top in ranges if bulk <= top and high <= top * beyond.get(top, 1.0)), None)
    if low < 0 or fits is None:
        low, high = float(values.min()), float(values.max())
    else:
        low, high = 0.0, fits
    return _scale(np.where(known, pixels, low), low, high)


def linear_to_srgb(light: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return light, float64 with 1 for white, in sRGB (IEC 61966-2-1), uint8; brighter light is white."""
    shares = np.clip(np.nan_to_num(light), 0.0, 1.0)
    curved = np.where(shares <= 0.0031308, 12.92 * shares, 1.055 * shares ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curved * 255.0), np.uint8)


def _scale(pixels: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    """Scale [low, high] to 0 to 255, uint8; what lies outside is clipped."""
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    shares = np.clip((pixels - low) / (high - low), 0.0, 1.0)
    return np.asarray(np.rint(shares * 255.0), np.uint8)


def _scale_deep(image: Image.Image, file: Image.Image) -> Image.Image:
    """Return a picture of 16 or 32 bits in 8: `convert` of Pillow would clip it.

    Samples of 16 bits are scaled by all values that they can have, others as `scale_samples` does.
    """
    from PIL import Image

    tags = getattr(file, "tag_v2", {})
    pixels = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM")):
        # Samples of 12 bits are stored as they are in a TIFF; all else is scaled to 16 by Pillow.
        top = 2 ** min(16, int(_number(tags.get(_BITS)) or 16)) - 1
        scaled = ((np.clip(pixels, 0, top).astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    else:
        if pixels.dtype == np.int32 and _number(tags.get(_TYPE, 1)) == 1 and file.format == "TIFF":
            pixels = pixels.view(np.uint32)  # Pillow knows no unsigned ones
        pixels = pixels.astype(np.float64)
        low, high = _number(tags.get(_SMALLEST)), _number(tags.get(_LARGEST))
        nodata = _number(tags.get(_NODATA))
        if image.mode == "F" and low is not None and high is not None and low < high < _NO_VALUE:
            known = np.isfinite(pixels)
            if nodata is not None:
                known &= ~_equal(pixels, nodata)
            scaled = _scale(np.where(known, pixels, low), low, high)
        else:
            scaled = scale_samples(pixels, nodata, _RANGES if image.mode == "F" else _INTEGER_RANGES)
    if tags.get(_PHOTOMETRIC) == 0:  # zero is white
        scaled = 255 - scaled
    key = image.info.get("transparency")
    if isinstance(key, int):
        scaled = np.where(pixels == key, np.uint8(255), scaled)
    return Image.fromarray(scaled)


def _equal(pixels: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    """Return which samples have a value, which a text may round otherwise than 32 bits do."""
    return np.asarray(np.isclose(pixels, value, rtol=1e-6, atol=0.0))


def _number(value: Any) -> float | None:
    """Return a TIFF tag's first value as a number, None where it is none."""
    try:
        return float(value[0] if isinstance(value, tuple) else str(value).strip("\0 "))
    except (TypeError, ValueError, IndexError):
        return None


def _to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    """Return RGB in sRGB by the image's ICC profile; a profile that does not fit the pixels is ignored.

    Viewers do so, too.
    """
    from PIL import Image, ImageCms

    mode = image.mode if image.mode in ("L", "CMYK", "LAB") else "RGB"
    plain = image if image.mode == mode else image.convert(mode)
    if isinstance(profile, bytes) and profile:
        transform = _transform(profile, mode)
    else:
        transform = _lab_transform() if mode == "LAB" else None
    if transform is None:
        return plain.convert("RGB")
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
