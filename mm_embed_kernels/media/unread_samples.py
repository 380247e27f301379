"""Names of what a TIFF or PSD holds that Pillow does not read, for messages."""

from __future__ import annotations

import io

# TIFF tags (TIFF 6.0): bits of each sample, their meaning, number and type.
_BITS, _PHOTOMETRIC, _COUNT, _TYPE = 258, 262, 277, 339
_COLORS = {0: "grays", 1: "grays", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB"}
_TYPES = {
    1: "unsigned integers",
    2: "signed integers",
    3: "floats",
    5: "complex integers",
    6: "complex floats",
}
_PSD_COLORS = {
    0: "bitmap",
    1: "grays",
    2: "indexed",
    3: "RGB",
    4: "CMYK",
    7: "channels",
    8: "duotone",
    9: "Lab",
}


def describe_samples(data: bytes) -> str:
    """Return what samples a TIFF or PSD holds, such as ``a TIFF of RGB in 32-bit floats``; else empty."""
    if data[:4] == b"8BPS" and len(data) >= 26:
        count, bits, color = (int.from_bytes(data[at : at + 2], "big") for at in (12, 22, 24))
        return f"a PSD of {_PSD_COLORS.get(color, f'color mode {color}')}, {count} channels of {bits} bits"
    if data[:2] not in (b"II", b"MM"):
        return ""
    from PIL import TiffImagePlugin

    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        depths = tags.get(_BITS, (1,))
        colors = _COLORS.get(tags.get(_PHOTOMETRIC, -1), "samples")
        kind = _TYPES.get(tags.get(_TYPE, (1,))[0], "samples")
        return f"a TIFF of {colors}, {tags.get(_COUNT, 1)} x {depths[0]}-bit {kind}"
    except Exception:  # noqa: BLE001 - a damaged directory has no description
        return ""
