from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import call_guarded
from tests.kernels.media_samples import encode_image, picture, png_bomb

IMAGE = get("image")
KINDS = {"PNG": {}, "JPEG": {"quality": 92}, "WEBP": {"quality": 92}, "GIF": {}}
MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


def bits(one: str, other: str) -> int:
    """Hamming distance of two hashes."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def error_class(data: bytes) -> str:
    """As the sandbox reports it: anything but a `SampleError` would be ``decode_error``."""
    outcome = call_guarded(IMAGE.probe, (data,))
    assert isinstance(outcome, SampleError), outcome
    return outcome.error_class


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(320, 240), (64, 200), (1, 1), (1500, 3)])
def test_probe(kind: str, size: tuple[int, int]) -> None:
    row = IMAGE.probe(encode_image(picture(size), kind, **KINDS[kind]))
    assert (row["width"], row["height"]) == size
    assert (row["format"], row["mime"], row["frames"], row["captured_at"]) == (kind, MIMES[kind], 1, None)
    assert row["mode"] == ("P" if kind == "GIF" else "RGB")
    (segment,) = IMAGE.segment(encode_image(picture(size), kind))
    assert (segment.span, segment.text, segment.cost) == ("full", None, size[0] * size[1])


def test_signals_measure_what_they_say() -> None:
    import numpy as np
    from PIL import Image

    def probe(luma: Any) -> dict[str, Any]:
        return IMAGE.probe(encode_image(Image.fromarray(np.asarray(luma, np.uint8)), "PNG"))

    flat = probe(np.full((64, 64), 90))
    assert (flat["brightness"], flat["contrast"], flat["sharpness"]) == (90, 0, 0)
    assert flat["entropy"] == 0
    halves = probe(np.repeat([[0, 255]], 64, axis=0).repeat(32, axis=1))
    assert (halves["brightness"], halves["contrast"], halves["entropy"]) == (127.5, 127.5, 1)
    board = probe(np.indices((64, 64)).sum(0) % 2 * 255)
    assert board["sharpness"] > halves["sharpness"] > flat["sharpness"]
    # The Laplacian of a checkerboard is +-4 * 255 everywhere.
    assert board["sharpness"] == pytest.approx((4 * 255) ** 2)


@pytest.mark.parametrize(
    ("kind", "options"), [("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_hashes_are_equal_under_lossless_encoding(kind: str, options: dict[str, Any]) -> None:
    one, other = (
        IMAGE.probe(encode_image(picture(), "PNG")),
        IMAGE.probe(encode_image(picture(), kind, **options)),
    )
    assert (one["phash"], one["dhash"]) == (other["phash"], other["dhash"])


@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 95), ("JPEG", 60), ("WEBP", 80)])
def test_phash_is_near_under_lossy_encoding_and_far_for_another_picture(kind: str, quality: int) -> None:
    one, other = (
        IMAGE.probe(encode_image(picture(), "PNG")),
        IMAGE.probe(encode_image(picture(), kind, quality=quality)),
    )
    assert bits(one["phash"], other["phash"]) <= 6
    assert bits(one["phash"], IMAGE.probe(encode_image(picture(seed=1), "PNG"))["phash"]) > 16


def test_phash_is_near_under_scaling() -> None:
    small = picture((1280, 960)).resize((640, 480))
    assert (
        bits(
            IMAGE.probe(encode_image(small, "PNG"))["phash"],
            IMAGE.probe(encode_image(picture((1280, 960)), "JPEG"))["phash"],
        )
        <= 6
    )


def transparent_palette() -> bytes:
    from PIL import Image

    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return encode_image(image, "PNG", transparency=0)


def test_transparency_lies_over_white() -> None:
    from PIL import Image

    assert IMAGE.probe(encode_image(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG"))["brightness"] == 255
    assert IMAGE.probe(encode_image(Image.new("RGBA", (40, 40), (0, 0, 0, 255)), "PNG"))["brightness"] == 0
    assert IMAGE.probe(encode_image(Image.new("LA", (40, 40), (0, 128)), "PNG"))[
        "brightness"
    ] == pytest.approx(127, abs=1)
    assert IMAGE.probe(transparent_palette())["brightness"] == 255
    assert (
        IMAGE.probe(encode_image(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "WEBP", lossless=True))[
            "brightness"
        ]
        == 255
    )


def deep(kind: str, dtype: str, **options: Any) -> bytes:
    """A ramp over the whole range of 16 bits."""
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 60_000, 128 * 128).reshape(128, 128)
    return encode_image(Image.fromarray(ramp.astype(dtype)), kind, **options)


@pytest.mark.parametrize(
    ("kind", "dtype", "mode"), [("PNG", "uint16", "I;16"), ("TIFF", "int32", "I"), ("TIFF", "float32", "F")]
)
def test_deep_pixels_are_scaled_not_clipped(kind: str, dtype: str, mode: str) -> None:
    row = IMAGE.probe(deep(kind, dtype))
    assert row["mode"] == mode
    # Half of 60,000, of 65,535.
    assert row["brightness"] == pytest.approx(116.7, abs=1)
    assert row["contrast"] == pytest.approx(67.4, abs=1)


def test_deep_pixels_with_a_transparent_value_are_scaled_too() -> None:
    row = IMAGE.probe(deep("PNG", "uint16", transparency=65_535))
    assert row["brightness"] == pytest.approx(116.7, abs=1)


def test_one_pixel_that_is_not_a_number_does_not_blank_the_picture() -> None:
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 1, 128 * 128, dtype=np.float32).reshape(128, 128)
    ramp[5, 5] = np.nan
    assert IMAGE.probe(encode_image(Image.fromarray(ramp), "TIFF"))["contrast"] > 50


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")],
)
def test_modes(mode: str, kind: str) -> None:
    row = IMAGE.probe(encode_image(picture().convert(mode), kind))
    plain = IMAGE.probe(encode_image(picture(), "PNG"))
    assert row["mode"] == mode
    assert row["brightness"] == pytest.approx(plain["brightness"], abs=12)


def animation(kind: str) -> bytes:
    from PIL import Image

    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
    return encode_image(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if kind == "WEBP" else {}),
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_counts_as_its_first_frame(kind: str) -> None:
    row = IMAGE.probe(animation(kind))
    assert row["frames"] == 3
    assert row["brightness"] == 76  # red
    assert row["contrast"] == 0


def with_exif(taken: str | None, changed: str | None) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    if changed is not None:
        exif[0x0132] = changed
    if taken is not None:
        exif.get_ifd(0x8769)[0x9003] = taken
    return encode_image(picture(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("taken", "changed", "expected"),
    [
        ("2019:07:20 20:17:40", "2024:01:01 00:00:00", datetime(2019, 7, 20, 20, 17, 40, tzinfo=UTC)),
        (None, "2024:01:01 00:00:00", datetime(2024, 1, 1, tzinfo=UTC)),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("yesterday", None, None),
        (None, None, None),
    ],
)
def test_time_of_capture(taken: str | None, changed: str | None, expected: datetime | None) -> None:
    assert IMAGE.probe(with_exif(taken, changed))["captured_at"] == expected


def test_damaged_exif_means_no_time() -> None:
    data = with_exif("2019:07:20 20:17:40", None)
    place = data.index(b"Exif\0\0") + 6
    assert IMAGE.probe(data[:place] + b"\xff" * 8 + data[place + 8 :])["captured_at"] is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.04, 0.1, 0.3, 0.6, 0.95])
def test_truncated(kind: str, share: float) -> None:
    data = encode_image(picture(), kind)
    assert error_class(data[: int(len(data) * share)]) == "truncated"


def test_truncated_progressive_jpeg() -> None:
    data = encode_image(picture((1200, 900)), "JPEG", quality=95, progressive=True)
    assert error_class(data[: len(data) // 2]) == "truncated"


def test_zero_bytes() -> None:
    assert error_class(b"") == "zero_length"


def test_text_bytes() -> None:
    assert error_class(b"this is not a picture") == "wrong_modality"


def test_vector_graphics_are_not_claimed() -> None:
    assert error_class(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>") == "unsupported_format"


def test_a_signature_alone_is_no_image() -> None:
    assert error_class(b"\x89PNG\r\n\x1a\n" + b"nothing that follows makes sense" * 3) == "unsupported_format"


@pytest.mark.parametrize("call", [IMAGE.probe, IMAGE.segment], ids=["probe", "segment"])
def test_bomb(call: Any) -> None:
    with pytest.raises(SampleError) as caught:
        call(png_bomb(60_000, 60_000))
    assert caught.value.error_class == "decompression_bomb"
    assert "60,000 x 60,000 = 3,600,000,000 pixels" in caught.value.message


@pytest.mark.parametrize(("kind", "least"), [("PNG", 0.55), ("JPEG", 0.5), ("BMP", 0.59), ("TIFF", 0.59)])
def test_half_a_picture_is_kept_where_the_spec_says_so(kind: str, least: float) -> None:
    """`on_partial`: the first rows, and the vector of nothing else."""
    import numpy as np

    from mm_embed_kernels.media.image import read_picture

    whole = encode_image(picture((640, 480)), kind)
    half = whole[: int(len(whole) * 0.6)]
    assert error_class(half) == "truncated"
    row = IMAGE.probe_prefix(half)
    assert (row["width"], row["height"], row["decoder"]) == (640, 480, "pillow")
    assert least <= row["read_share"] < 0.7
    rows = np.asarray(read_picture(half, 512).rgb, int)
    full = np.asarray(read_picture(whole, 512).rgb, int)
    assert rows.shape == (round(480 * row["read_share"]), 640, 3)
    # A BMP begins with its lowest row.
    same = full[-len(rows) :] if kind == "BMP" else full[: len(rows)]
    assert np.abs(rows - same)[:-16].max() == 0
    assert IMAGE.probe_prefix(whole)["read_share"] == 1


def test_a_picture_without_one_whole_row_stays_a_failure() -> None:
    data = encode_image(picture((640, 480)), "JPEG", progressive=True)
    with pytest.raises(SampleError, match="truncated"):
        IMAGE.probe_prefix(data[: len(data) // 3])


def test_what_pillow_does_not_know_is_read_by_ffmpeg() -> None:
    """A picture of 10 bits a sample (DPX), which FFmpeg writes and Pillow has no reader for."""
    import av
    import numpy as np

    stream = io.BytesIO()
    with av.open(stream, "w", format="image2pipe") as out:
        track = out.add_stream("dpx", rate=1)
        track.width, track.height, track.pix_fmt = 64, 48, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (200, 100, 50), np.uint8), format="rgb24")
        frame.pts = 0
        out.mux([*track.encode(frame), *track.encode()])
    row = IMAGE.probe(stream.getvalue())
    assert (row["decoder"], row["format"], row["width"], row["height"], row["read_share"]) == (
        "ffmpeg",
        "dpx",
        64,
        48,
        1,
    )
    assert row["brightness"] == pytest.approx(200 * 0.299 + 100 * 0.587 + 50 * 0.114, abs=1)


@pytest.mark.parametrize("kind", ["PPM", "DDS", "ICNS", "PCX", "SGI", "JPEG2000", "AVIF", "QOI"])
def test_formats_that_only_a_decoder_knows(kind: str) -> None:
    assert IMAGE.probe(encode_image(picture((128, 128)), kind))["width"] == 128 * (8 if kind == "ICNS" else 1)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("TGA", "RGB", {}), ("TGA", "RGBA", {"compression": "tga_rle"}), ("TGA", "L", {}), ("TGA", "P", {}), ("BLP", "P", {}), ("DIB", "RGB", {}),
        ("MSP", "1", {}), ("XBM", "1", {}), ("TIFF", "RGB", {"big_tiff": True}),
    ],
)  # fmt: skip
def test_formats_that_the_library_of_signatures_does_not_know(
    kind: str, mode: str, options: dict[str, Any]
) -> None:
    assert IMAGE.probe(encode_image(picture((60, 40)).convert(mode), kind, **options))["width"] == 60


def test_a_lossless_jpeg_is_decoded_whole() -> None:
    """Its decoder can make no smaller picture of it, as one asks of other JPEGs. All pixels are 128: one bit of zero each."""
    frame = (
        bytes.fromhex("ffc3000b08")
        + (600).to_bytes(2, "big")
        + (800).to_bytes(2, "big")
        + bytes.fromhex("01011100")
    )
    table = bytes.fromhex("ffc4001400" + "01" + "00" * 15 + "00")
    data = (
        b"\xff\xd8"
        + frame
        + table
        + bytes.fromhex("ffda0008010100010000")
        + bytes(800 * 600 // 8)
        + b"\xff\xd9"
    )
    row = IMAGE.probe(data)
    assert (row["width"], row["format"], row["brightness"], row["read_share"]) == (800, "JPEG", 128, 1)


def test_a_psd_without_layers() -> None:
    head = b"8BPS\0\x01" + bytes(6) + b"\0\x03" + (2).to_bytes(4, "big") * 2 + b"\0\x08\0\x03"
    row = IMAGE.probe(head + bytes(12) + b"\0\0" + bytes(range(12)))
    assert (row["format"], row["width"], row["frames"]) == ("PSD", 2, 1)


def test_a_scan_behind_the_signature_of_a_tiff() -> None:
    outcome = call_guarded(IMAGE.probe, (b"II*\0\xff\xff\0\0".ljust(128, b"\0") + b"DICM" + bytes(100),))
    assert "the content is application/dicom" in outcome.message


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG of one colour that states any size: its scan is made of copies of one block's code."""
    from PIL import Image

    small = encode_image(Image.new("L", (8, 8), 90), "JPEG")
    place = small.index(b"\xff\xc0")
    head = (
        small[:place]
        + small[place : place + 5]
        + height.to_bytes(2, "big")
        + width.to_bytes(2, "big")
        + small[place + 9 :]
    )
    start = head.index(b"\xff\xda")
    scan = start + 2 + int.from_bytes(head[start + 2 : start + 4], "big")
    # The difference of a block's brightness to the last one's is zero: two bits, then the end of the block, four.
    return (
        head[:scan] + head[scan:-2] + bytes.fromhex("28a28a") * (width * height // 64 // 4 + 1) + b"\xff\xd9"
    )


def test_600_megapixels() -> None:
    """A JPEG is decoded at an eighth of its size; what cannot be is refused by its measured size."""
    row = IMAGE.probe(jpeg_of(30_000, 20_000))
    assert (row["width"], row["height"]) == (30_000, 20_000)
    assert IMAGE.segment(jpeg_of(30_000, 20_000))[0].cost == 600_000_000
    noisy = png_bomb(30_000, 20_000)
    with pytest.raises(SampleError, match=r"decompression_bomb: 30,000 x 20,000 = 600,000,000 pixels"):
        IMAGE.probe(noisy)
    with pytest.raises(SampleError, match=r"too_large: 30,000 x 20,000 = 600,000,000 pixels in 10,000"):
        IMAGE.probe(noisy + bytes(10_000_000))


def test_gif_bomb() -> None:
    data = bytearray(encode_image(picture(), "GIF"))
    data[6:10] = (65_000).to_bytes(2, "little") * 2
    assert error_class(bytes(data)) == "decompression_bomb"


def test_open_image_keeps_nothing_open() -> None:
    from mm_embed_kernels.media.image_file import open_image

    with open_image(encode_image(picture(), "PNG")) as image:
        assert isinstance(image.fp, io.BytesIO)
    assert image.fp is None or image.fp.closed
