"""Pictures as other viewers show them: colors of XPM, gamma of PNG. The right values are ImageMagick's, or by hand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.media.media_type import sniff

XPM = b"""/* XPM */
static char *x[] = {
"5 1 5 1",
"a c #BEBEB6B6AEAE",
"b m white c green",
"c c gray50 s shade",
"d c #F80",
"e c None",
"abcde"};
"""


def shown(data: bytes) -> Any:
    return np.asarray(read_picture(data, 512).rgb).reshape(-1, 3).tolist()


def test_colors_of_xpm_have_names_or_up_to_twelve_digits() -> None:
    # convert x.xpm txt:-
    assert shown(XPM) == [[190, 182, 174], [0, 255, 0], [127, 127, 127], [255, 136, 0], [255, 255, 255]]


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Return a PNG with one more chunk behind its head."""
    import zlib

    chunk = name + content
    return png[:33] + len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]


def png(mode: str) -> bytes:
    from PIL import Image

    samples = np.arange(256, dtype=np.uint8).reshape(1, -1)
    picture = Image.fromarray(samples).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(samples.astype(np.uint16) * 257)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_a_png_of_linear_light_is_brighter(mode: str) -> None:
    """A ramp of linear light has the mean of 255 / (1 + 1 / 2.2) on a screen (ImageMagick: 175)."""
    linear = np.array(shown(with_chunk(png(mode), b"gAMA", (100_000).to_bytes(4, "big"))))
    assert linear.mean() == pytest.approx(255 / (1 + 1 / 2.2), abs=1)
    assert linear[0].tolist() == [0, 0, 0]
    assert linear[-1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("chunks", [
    [], [(b"gAMA", 45_455)], [(b"gAMA", 0)], [(b"gAMA", 100_000), (b"sRGB", None)], [(b"gAMA", 1)],
])  # fmt: skip
def test_a_png_of_a_screen_is_shown_as_it_is(chunks: list[tuple[bytes, int | None]]) -> None:
    data = png("L")
    for name, value in chunks:
        data = with_chunk(data, name, b"\0" if value is None else value.to_bytes(4, "big"))
    assert [pixel[0] for pixel in shown(data)] == list(range(256))


@pytest.mark.parametrize(("head", "mime"), [
    (b"\0\0\x07\xb5moov\0\0\0\x6cmvhd", "video/quicktime"), (b"\0\0\0\x08wide\0\1\0\0mdat", "video/quicktime"),
    (b"\x12\0\0\0mdat\0\0\0\0", "video/quicktime"), (b"gimp xcf file\0", "image/x-xcf"), (b"The free world", "text/plain"),
])  # fmt: skip
def test_old_files_are_known_by_their_first_bytes(head: bytes, mime: str) -> None:
    assert sniff(head + bytes(20) if b"\0" in head else head) == mime
