"""Samples of 16 and 32 bits and floats, scaled to 8 bits by their range; never all of them are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.media.fits_values import FitsValues

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
# Scales samples of any shape to uint8.
Scale = Callable[[Array], Array]

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
# Samples that are measured at once.
_MEASURED = 1_000_000


def deep_scale(image: Image.Image, file: Image.Image) -> Scale:
    """Return what scales the samples of a picture of 16 or 32 bits: `convert` of Pillow would clip them.

    Samples of 16 bits are scaled by all values that they can have, others as `range_scale` does.

    Args:
        image: the pixels, of the mode ``I``, ``I;16`` or ``F``.
        file: the opened file that they are from.
    """
    if isinstance(stored := image.info.get("fits"), FitsValues):
        return _fits_scale(image, stored)
    tags = getattr(file, "tag_v2", {})
    key = image.info.get("transparency")
    finish = partial(_finish, inverted=tags.get(_PHOTOMETRIC) == 0, key=key if isinstance(key, int) else None)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM")):
        # Samples of 12 bits are stored as they are in a TIFF; all else is scaled to 16 by Pillow.
        top = 2 ** min(16, int(_number(tags.get(_BITS)) or 16)) - 1
        return partial(finish, partial(_scale_integers, top=top))
    # Pillow knows no unsigned ones of 32 bits.
    unsigned = image.mode == "I" and _number(tags.get(_TYPE, 1)) == 1 and file.format == "TIFF"
    floats = partial(_as_floats, unsigned=unsigned)
    nodata = _number(tags.get(_NODATA))
    low, high = _number(tags.get(_SMALLEST)), _number(tags.get(_LARGEST))
    if image.mode == "F" and low is not None and high is not None and low < high < _NO_VALUE:
        return partial(finish, lambda pixels: _scale_known(floats(pixels), np.isfinite, nodata, low, high))
    ranges = _RANGES if image.mode == "F" else _INTEGER_RANGES
    scale = range_scale(lambda: map(floats, _rows(image)), nodata, ranges)
    return partial(finish, lambda pixels: scale(floats(pixels)))


def _fits_scale(image: Image.Image, stored: FitsValues) -> Scale:
    """Return what scales the samples of a FITS picture, whose integers are signed."""

    def values(pixels: Array) -> Array:
        if pixels.dtype.kind == "f":
            # ImageMagick writes the zero of integers beside floats that have none.
            return pixels.astype(np.float64)
        signed = pixels.view(np.int16) if pixels.dtype == np.uint16 else pixels
        found: Array = stored.zero + stored.scale * signed.astype(np.float64)
        return found if stored.blank is None else np.where(signed == stored.blank, np.nan, found)

    if image.mode.startswith("I;16") and stored.zero == 2.0**15 and stored.scale == 1:
        return lambda pixels: _scale_known(values(pixels), np.isfinite, None, 0.0, 2.0**16 - 1)
    ranges = _RANGES if image.mode == "F" or stored.scale != 1 else _INTEGER_RANGES
    scale = range_scale(lambda: map(values, _rows(image)), None, ranges)
    return lambda pixels: scale(values(pixels))


def range_scale(
    parts: Callable[[], Iterable[Array]], nodata: float | None = None, ranges: tuple[float, ...] = _RANGES
) -> Scale:
    """Return what scales samples to uint8 by the range that they fit in; what is no value becomes black.

    Values of no range (such as heights below zero) are scaled from their smallest to their largest.

    Args:
        parts: streams all samples, float64, in parts of any shape.
        nodata: the value that stands for none, beside NaN, infinity and the largest floats.
        ranges: largest values of the ranges, ascending; each begins with zero.
    """
    found = _measure(parts, nodata)
    if found is None:
        return lambda pixels: np.zeros(pixels.shape, np.uint8)
    low, bulk, high = (float(item) for item in np.quantile(found.sampled, (_OUTSIDE, _BULK, 1 - _OUTSIDE)))
    beyond = _HIGHLIGHTS if ranges is _RANGES else {}
    fits = next((top for top in ranges if bulk <= top and high <= top * beyond.get(top, 1.0)), None)
    low, high = (found.smallest, found.largest) if low < 0 or fits is None else (0.0, fits)
    return lambda pixels: _scale_known(pixels, _is_value, nodata, low, high)


def linear_to_srgb(light: Array) -> Array:
    """Return light, float64 with 1 for white, in sRGB (IEC 61966-2-1), uint8; brighter light is white."""
    shares = np.clip(np.nan_to_num(light), 0.0, 1.0)
    curved = np.where(shares <= 0.0031308, 12.92 * shares, 1.055 * shares ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curved * 255.0), np.uint8)


@dataclass(frozen=True)
class _Values:
    """The smallest and largest value of a picture, and some of all, evenly spread."""

    smallest: float
    largest: float
    sampled: Array


def _measure(parts: Callable[[], Iterable[Array]], nodata: float | None) -> _Values | None:
    """Return the values of all samples; None where there are none."""
    count, smallest, largest = 0, np.inf, -np.inf
    for part in parts():
        values = part[_value_mask(part, _is_value, nodata)]
        if values.size:
            count += values.size
            smallest, largest = min(smallest, float(values.min())), max(largest, float(values.max()))
    if not count:
        return None
    step, seen, sampled = max(1, count // _SAMPLED), 0, []
    for part in parts():
        values = part[_value_mask(part, _is_value, nodata)]
        sampled.append(values[-seen % step :: step])
        seen += values.size
    return _Values(smallest, largest, np.concatenate(sampled))


def _rows(image: Image.Image) -> Iterator[Array]:
    """Stream the samples of a picture in bands of rows."""
    rows = max(1, _MEASURED // max(1, image.width))
    for top in range(0, image.height, rows):
        yield np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _as_floats(pixels: Array, unsigned: bool) -> Array:
    return (pixels.view(np.uint32) if unsigned and pixels.dtype == np.int32 else pixels).astype(np.float64)


def _is_value(pixels: Array) -> Array:
    return np.isfinite(pixels) & (np.abs(pixels) < _NO_VALUE)


def _value_mask(pixels: Array, is_value: Callable[[Array], Array], nodata: float | None) -> Array:
    """Return which samples have a value; a text of `nodata` may round it otherwise than 32 bits do."""
    known = is_value(pixels)
    if nodata is not None:
        known &= ~np.isclose(pixels, nodata, rtol=1e-6, atol=0.0)
    return np.asarray(known)


def _scale_known(
    pixels: Array, is_value: Callable[[Array], Array], nodata: float | None, low: float, high: float
) -> Array:
    """Scale [low, high] to 0 to 255, uint8; what lies outside is clipped, and what is no value is `low`."""
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    pixels = np.where(_value_mask(pixels, is_value, nodata), pixels, low)
    shares = np.clip((pixels - low) / (high - low), 0.0, 1.0)
    return np.asarray(np.rint(shares * 255.0), np.uint8)


def _scale_integers(pixels: Array, top: int) -> Array:
    return ((np.clip(pixels, 0, top).astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _finish(scale: Scale, pixels: Array, inverted: bool, key: int | None) -> Array:
    """Scale samples, of which zero may be white, and those of the value `key` transparent over white."""
    scaled = scale(pixels)
    if inverted:
        scaled = 255 - scaled
    return scaled if key is None else np.where(pixels == key, np.uint8(255), scaled)


def _number(value: Any) -> float | None:
    """Return a TIFF tag's first value as a number, None where it is none."""
    try:
        return float(value[0] if isinstance(value, tuple) else str(value).strip("\0 "))
    except (TypeError, ValueError, IndexError):
        return None
