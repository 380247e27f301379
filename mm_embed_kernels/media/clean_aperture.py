"""Clean aperture of a still picture in a HEIF file (ISO/IEC 23008-12): the part that is displayed."""

from __future__ import annotations

from fractions import Fraction

from mm_embed_kernels.media.iso_boxes import boxes

# left, top, right, bottom in pixels.
Box = tuple[int, int, int, int]


def clean_aperture(data: bytes, width: int, height: int) -> Box | None:
    """Return the part of the primary picture that is displayed; None for all of it.

    libavif, which Pillow decodes AVIF with, leaves it to its caller; libheif cuts the picture itself.

    Args:
        data: the file.
        width: of the decoded picture, before it is turned.
        height: likewise.
    """
    try:
        meta = next(body for kind, body in boxes(data) if kind == b"meta")[4:]
        parts = dict(boxes(meta))
        properties = dict(boxes(parts[b"iprp"]))
        primary = _primary(parts[b"pitm"])
        listed = list(boxes(properties[b"ipco"]))
        apertures = [
            listed[number - 1][1]
            for number in _properties_of(properties[b"ipma"], primary)
            if 0 < number <= len(listed) and listed[number - 1][0] == b"clap"
        ]
        return _box(apertures[0], width, height) if apertures else None
    except (KeyError, StopIteration, IndexError, ZeroDivisionError):
        return None  # no such table, or a damaged one, which the decoder reports


def _primary(box: bytes) -> int:
    return int.from_bytes(box[4:6] if box[0] == 0 else box[4:8], "big")


def _properties_of(box: bytes, item: int) -> list[int]:
    """Return the numbers of an item's properties, from one, in their order."""
    version, wide = box[0], box[3] & 1
    octets, place = (2 if version == 0 else 4), 8
    for _ in range(int.from_bytes(box[4:8], "big")):
        found, count = int.from_bytes(box[place : place + octets], "big"), box[place + octets]
        place += octets + 1
        step = 2 if wide else 1
        numbers = [
            int.from_bytes(box[at : at + step], "big") & (0x7FFF if wide else 0x7F)
            for at in range(place, place + count * step, step)
        ]
        if found == item:
            return numbers
        place += count * step
    return []


def _box(clap: bytes, width: int, height: int) -> Box | None:
    """Return the aperture in whole pixels, None where it is none or lies outside of the picture."""
    raw = [int.from_bytes(clap[at : at + 4], "big", signed=at >= 16) for at in range(0, 32, 4)]
    wide, high, right, down = (Fraction(raw[i], raw[i + 1]) for i in range(0, 8, 2))
    left = round(right + Fraction(width - 1, 2) - (wide - 1) / 2)
    top = round(down + Fraction(height - 1, 2) - (high - 1) / 2)
    box = (left, top, left + round(wide), top + round(high))
    inside = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    return box if inside and box != (0, 0, width, height) else None
