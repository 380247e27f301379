"""Pictures as other viewers show them: colors of XPM, gamma of PNG. The right values are ImageMagick's, or by hand."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.media.media_type import sniff

XPM = b"""/* XPM */
static char *x[] = {
"5 1 5 1",

/* colors */
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


def test_a_bit_of_an_xbm_is_ink() -> None:
    # convert x.xbm txt:-
    data = b"#define x_width 4\n#define x_height 1\nstatic char x_bits[] = {\n 0x03 };\n"
    assert shown(data) == [[0] * 3] * 2 + [[255] * 3] * 2


def test_around_the_first_frame_of_a_gif_there_is_nothing() -> None:
    """A canvas of 4 x 1 whose first frame covers the second pixel, as a browser shows it."""
    colors = bytes([255, 0, 0, 0, 255, 0])
    frame = b"\x2c" + bytes([1, 0, 0, 0, 1, 0, 1, 0, 0]) + b"\2\2\x44\1\0\x3b"
    assert shown(b"GIF89a" + bytes([4, 0, 1, 0, 0x80, 0, 0]) + colors + frame) == [
        [255] * 3, [255, 0, 0], [255] * 3, [255] * 3,
    ]  # fmt: skip


def test_a_bit_of_a_psd_is_ink() -> None:
    head = (
        b"8BPS\0\x01" + bytes(6) + b"\0\x01" + (1).to_bytes(4, "big") + (8).to_bytes(4, "big") + b"\0\1\0\0"
    )
    assert [pixel[0] for pixel in shown(head + bytes(12) + b"\0\0" + b"\xf0")] == [0] * 4 + [255] * 4


def test_a_pam_is_read() -> None:
    data = b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(range(6))
    assert shown(data) == [[0, 1, 2], [3, 4, 5]]


def test_grays_multiplied_by_alpha_lie_over_white() -> None:
    """A TIFF of two samples: 64 of 128 is a gray of 128, of which half covers white; 191 in all."""
    tags = [
        (256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 2, 8 | 8 << 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 2), (278, 3, 1, 1),
        (279, 4, 1, 4), (338, 3, 1, 1),
    ]  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + count.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, count, value in tags
    )
    data = (
        b"II*\0" + (12).to_bytes(4, "little") + bytes([64, 128, 255, 255]) + len(tags).to_bytes(2, "little")
    )
    ((first, _, _), second) = shown(data + entries + bytes(4))
    assert first == pytest.approx(191, abs=1)
    assert second == [255] * 3


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Return a PNG with one more chunk behind its head."""
    import zlib

    chunk = name + content
    return (
        png[:33] + len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]
    )


def png(mode: str) -> bytes:
    from PIL import Image

    samples = np.arange(256, dtype=np.uint8).reshape(1, -1)
    picture = Image.fromarray(samples).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(samples.astype(np.uint16) * 257)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_the_transparent_gray_of_a_png_counts_in_its_own_bits() -> None:
    """Four grays of two bits, of which the second is transparent, over white."""
    import zlib

    head = (4).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([2, 0, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", head),
        (b"tRNS", b"\0\1"),
        (b"IDAT", zlib.compress(b"\0\x1b")),
        (b"IEND", b""),
    ):
        chunk = name + content
        data += len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    assert [pixel[0] for pixel in shown(data)] == [0, 255, 170, 255]


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


def test_a_png_may_hold_much_text() -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    (notes := PngInfo()).add_text("history", "crop; " * 300_000, zip=True)
    stream = io.BytesIO()
    Image.new("RGB", (3, 1), (1, 2, 3)).save(stream, "PNG", pnginfo=notes)
    assert shown(stream.getvalue()) == [[1, 2, 3]] * 3


@pytest.mark.parametrize(("head", "mime"), [
    (b"\0\0\x07\xb5moov\0\0\0\x6cmvhd", "video/quicktime"), (b"\0\0\0\x08wide\0\1\0\0mdat", "video/quicktime"),
    (b"\x12\0\0\0mdat\0\0\0\0", "video/quicktime"), (b"gimp xcf file\0", "image/x-xcf"), (b"The free world", "text/plain"),
])  # fmt: skip
def test_old_files_are_known_by_their_first_bytes(head: bytes, mime: str) -> None:
    assert sniff(head + bytes(20) if b"\0" in head else head) == mime


def animation(*harm: bytes) -> bytes:
    """Return a PNG of three gray levels with an animation of two frames, of which a kind of chunk is left out."""
    from PIL import Image

    frames = [Image.new("L", (3, 2), gray) for gray in (200, 100)]
    frames[0].putpixel((0, 0), 10)
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:], duration=100)
    data, kept, place = stream.getvalue(), b"", 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kept += b"" if data[place + 4 : place + 8] in harm else data[place:end]
        place = end
    return data[:8] + kept


@pytest.mark.parametrize("harm", [(), (b"fcTL",), (b"fdAT",), (b"acTL",), (b"fcTL", b"fdAT")])
def test_a_damaged_animation_shows_its_still_picture(harm: tuple[bytes, ...]) -> None:
    """As the standard wants it: what does not know the animation shows the picture before it."""
    picture = read_picture(animation(*harm), 512)
    assert picture.defect is None
    assert np.asarray(picture.rgb)[..., 0].tolist() == [[10, 200, 200], [200, 200, 200]]


def test_a_still_picture_that_is_damaged_as_well_is_no_picture() -> None:
    data = animation(b"fcTL")
    place = data.index(b"IDAT")
    with pytest.raises(SampleError, match="decode_error"):
        read_picture(data[: place + 4] + bytes(8) + data[place + 12 :], 512)


def test_a_pfm_begins_with_its_lowest_row() -> None:
    # The specification of PFM (Debevec); GIMP and ImageMagick show it so.
    rows = np.array([[[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [1, 1, 1]]], "<f4")
    assert shown(b"PF\n2 2\n-1.0\n" + rows.tobytes()) == [
        [255, 0, 0], [255] * 3, [0, 0, 255], [0, 255, 0],
    ]  # fmt: skip


def fits(cards: dict[str, object], pixels: Any) -> bytes:
    """Return a FITS file whose lowest row comes first."""
    axes = {f"NAXIS{number}": length for number, length in enumerate(pixels.shape[::-1], 1)}
    bits = {"SIMPLE": "T", "BITPIX": 8 * pixels.itemsize * (-1 if pixels.dtype.kind == "f" else 1)}
    lines = [
        f"{name:8}= {value!s:>20}" for name, value in ({**bits, "NAXIS": pixels.ndim, **axes} | cards).items()
    ]
    head = "".join(f"{line:80}" for line in [*lines, "END"]).encode()
    return head.ljust(2_880) + pixels.tobytes().ljust(2_880, b"\0")


@pytest.mark.parametrize(
    ("cards", "pixels", "grays"),
    [
        # As cameras of telescopes and ImageMagick write unsigned numbers (FITS standard 4.0, 4.4.2.5).
        ({"BZERO": 32768, "BSCALE": "1.0E+00"}, np.array([[-32768, 32767, 0]], ">i2"), [0, 255, 128]),
        ({}, np.array([[0, 2048, 4095]], ">i2"), [0, 128, 255]),
        ({"BLANK": -1}, np.array([[-1, 0, 4095]], ">i2"), [0, 0, 255]),
        ({"BSCALE": 0.01}, np.array([[0, 50, 100]], ">i4"), [0, 128, 255]),
        ({"BZERO": 2147483648}, np.array([[0.0, 0.5, 1.0]], ">f4"), [0, 128, 255]),
    ],
)
def test_values_of_a_fits_have_their_zero_and_scale(
    cards: dict[str, object], pixels: Any, grays: list[int]
) -> None:
    assert [pixel[0] for pixel in shown(fits(cards, pixels))] == grays


def test_a_cube_of_a_fits_is_named() -> None:
    with pytest.raises(SampleError, match=r"3 axes \(4 x 2 x 3\)"):
        read_picture(fits({}, np.zeros((3, 2, 4), ">i2")), 512)


def test_samples_that_no_decoder_reads_are_named() -> None:
    entries = {256: 1, 257: 1, 258: 32, 259: 1, 262: 2, 273: 8, 277: 3, 278: 1, 279: 12, 339: 3}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + fields + bytes(4 + 12)
    with pytest.raises(SampleError, match="a TIFF of RGB, 3 x 32-bit floats"):
        read_picture(tiff, 512)
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 1, 1, 16, 9) + bytes(32)
    with pytest.raises(SampleError, match="a PSD of Lab, 3 channels of 16 bits"):
        read_picture(psd, 512)
