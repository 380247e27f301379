"""Pictures as a viewer shows them: turned, cut, scaled by their range, in the colors of their profile.

The files of `tests/kernels/pictures` are by libheif's and libavif's encoders; the PNG of each is its picture
in 24 x 24 pixels by ImageMagick. Numbers are counted by hand, or by ImageMagick where a test says so.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.image import read_picture
from mm_embed_kernels.media.picture_formats import DECODERS
from mm_embed_kernels.modalities import get
from tests.kernels.media_samples import encode_image, picture

IMAGE = get("image")
FILES = Path(__file__).parent.parent / "pictures"
# How the pixels lie in the file for each EXIF orientation (EXIF 2.32, tag 274): row 0 and column 0 are ...
LIE = {
    1: None,
    2: "FLIP_LEFT_RIGHT",  # ... top and right
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",  # ... right and top: the camera was turned clockwise
    7: "TRANSVERSE",
    8: "ROTATE_270",
}
ENCODINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 95}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {"quality": 95}),
}


def lying(orientation: int, kind: str, options: dict[str, Any], drawn: Any = None) -> bytes:
    from PIL import Image
    from PIL.Image import Transpose

    drawn = drawn or picture((96, 160))
    method = LIE[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    turned = drawn.transpose(Transpose[method]) if method else drawn
    return encode_image(turned, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", LIE)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_picture_is_turned_before_anything_is_measured(encoding: str, orientation: int) -> None:
    kind, options = ENCODINGS[encoding]
    data = lying(orientation, kind, options)
    row, upright = IMAGE.probe(data), IMAGE.probe(encode_image(picture((96, 160)), kind, **options))
    assert (row["width"], row["height"]) == (96, 160)
    assert all((int(row[key], 16) ^ int(upright[key], 16)).bit_count() <= 2 for key in ("phash", "dhash"))
    seen = np.asarray(read_picture(data, 512).rgb, int)
    assert np.abs(seen - np.asarray(picture((96, 160)), int)).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_pixels_are_turned_too(kind: str) -> None:
    from PIL import Image

    drawn = Image.fromarray(np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100)
    seen = np.asarray(read_picture(lying(6, kind, {}, drawn), 512).rgb, int)[..., 0]
    assert np.abs(seen - np.asarray(drawn, int) / 257).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_the_xmp_turns_nothing(kind: str) -> None:
    """As in ImageMagick and in browsers, which go by the EXIF alone."""
    from PIL import PngImagePlugin

    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    options: dict[str, Any] = {"xmp": xmp.encode()}
    if kind == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    row = IMAGE.probe(encode_image(picture((96, 160)), kind, **options))
    assert (row["width"], row["height"]) == picture((96, 160)).size


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_the_rows_of_half_a_picture_are_turned_too(kind: str) -> None:
    """A picture that lies on its side loses columns."""
    data = lying(6, kind, {}, picture((480, 640)))
    row = IMAGE.probe_prefix(data[: int(len(data) * 0.6)])
    assert (row["width"], row["height"]) == (480, 640)
    seen = np.asarray(read_picture(data[: int(len(data) * 0.6)], 512).rgb, int)
    assert seen.shape == (640, round(480 * row["read_share"]), 3)
    # Orientation 6: the first row of the file is the rightmost column.
    whole = np.asarray(picture((480, 640)), int)[:, -seen.shape[1] :]
    assert np.abs(seen - whole)[:, 16:].mean() < 4


def test_an_embedder_sees_the_picture_upright() -> None:
    embedder = create("conse")
    lies, upright = lying(6, "PNG", {}), encode_image(picture((96, 160)), "PNG")
    np.testing.assert_array_equal(embedder.decode(lies, "full"), embedder.decode(upright, "full"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tiles.heic", (1280, 960)),
        ("tiles-cut-turned-mirrored.heic", (500, 700)),
        ("turned.heic", (140, 96)),
        ("cut-turned-mirrored.avif", (100, 50)),
    ],
)
def test_tiles_rotation_mirror_and_crop(name: str, size: tuple[int, int]) -> None:
    """Tiles of 512 pixels; the container cuts, turns and mirrors. Sizes and pixels are ImageMagick's."""
    from PIL import Image

    data = (FILES / name).read_bytes()
    row = IMAGE.probe(data)
    assert (row["width"], row["height"], row["decoder"], row["read_share"]) == (*size, "pillow", 1)
    seen = read_picture(data, 512).rgb.resize((24, 24), Image.Resampling.LANCZOS)
    with Image.open((FILES / name).with_suffix(".png")) as shown:
        assert np.abs(np.asarray(seen, int) - np.asarray(shown.convert("RGB"), int)).mean() < 2.5
    assert IMAGE.segment(data)[0].cost >= size[0] * size[1]


def test_a_heic_that_is_cut_off() -> None:
    data = (FILES / "tiles.heic").read_bytes()
    for call in (IMAGE.probe, IMAGE.probe_prefix):
        with pytest.raises(SampleError, match="truncated"):
            call(data[: len(data) // 2])


# -- samples of more than 8 bits


def tiff(samples: Any, **tags: Any) -> bytes:
    """Encode samples as a TIFF with tags by number (`t42113="-9999"`)."""
    from PIL import Image, TiffImagePlugin

    table = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        table[int(name[1:])] = value
    return encode_image(Image.fromarray(samples), "TIFF", tiffinfo=table)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize(("level", "shown"), [(0, 0), (13_107, 51), (32_896, 128), (65_535, 255)])
def test_16_bits_are_scaled_by_their_range(kind: str, level: int, shown: int) -> None:
    from PIL import Image

    data = encode_image(Image.fromarray(np.full((40, 60), level, np.uint16)), kind)
    assert IMAGE.probe(data)["brightness"] == shown


def test_bytes_in_the_other_order() -> None:
    from PIL import Image

    drawn = Image.frombytes("I;16B", (60, 40), np.full((40, 60), 13_000, ">u2").tobytes())
    assert IMAGE.probe(encode_image(drawn, "TIFF"))["brightness"] == 51  # 50.6


def test_zero_may_be_white() -> None:
    assert IMAGE.probe(tiff(np.full((4, 4), 65_535, np.uint16), t262=0))["brightness"] == 0


@pytest.mark.parametrize("top", [1.0, 255.0, 65_535.0])
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_floats_are_scaled_by_the_range_that_they_fit_in(top: float, share: float) -> None:
    """A dark picture stays dark."""
    samples = np.full((40, 60), share * top, np.float32)
    samples[0, 0] = 0
    if top > 1 and share < 1:
        samples[20:, :] = top
        assert IMAGE.probe(tiff(samples))["brightness"] == pytest.approx((share + 1) / 2 * 255, abs=1)
    else:
        assert IMAGE.probe(tiff(samples))["brightness"] == pytest.approx(share * 255, abs=1)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_highlights_beyond_white_are_white(top: float) -> None:
    """One pixel in 500 is 1.2 times white: 0.998 * 0.5 * 255 + 0.002 * 255 = 127.8."""
    samples = np.full((50, 100), 0.5 * top, np.float32)
    samples[0, :10] = 1.2 * top
    assert IMAGE.probe(tiff(samples))["brightness"] == pytest.approx(127.8, abs=0.6)


@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_reflections_in_light_are_white(ratio: float) -> None:
    samples = np.full((50, 100), 0.5, np.float32)
    samples[0, :10] = ratio
    assert IMAGE.probe(tiff(samples))["brightness"] == pytest.approx(127.8, abs=0.6)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("white-16-bits", (255, 255, 255), (255, 255, 255)),
        ("red-to-blue-12-bits", (255, 0, 0), (0, 0, 255)),
    ],
)
def test_colors_of_a_deep_jpeg_2000(name: str, first: tuple[int, ...], last: tuple[int, ...]) -> None:
    """The first and the last row by ImageMagick."""
    shown = read_picture((FILES / f"{name}.jp2").read_bytes(), 100).rgb
    assert (shown.getpixel((0, 0)), shown.getpixel((0, 29))) == (first, last)


@pytest.mark.parametrize(
    ("missing", "tags"),
    [
        (-3.4e38, {}),
        (float("nan"), {}),
        (float("inf"), {}),
        (-9999.0, {"t42113": "-9999"}),
        (1e20, {"t42113": "1e+20"}),
    ],
)
def test_missing_values_are_left_out(missing: float, tags: dict[str, str]) -> None:
    """They are black, and move no other pixel."""
    samples = np.full((40, 60), 128, np.float32)
    samples[:, 30:] = 255
    samples[:4] = missing
    seen = np.asarray(read_picture(tiff(samples, **tags), 512).rgb)
    assert set(seen[:4].ravel().tolist()) == {0}
    assert set(seen[4:, :30].ravel().tolist()) == {128}
    assert set(seen[4:, 30:].ravel().tolist()) == {255}


def test_heights_have_no_range_of_their_own() -> None:
    samples = np.linspace(-100, 2_900, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert IMAGE.probe(tiff(samples))["brightness"] == pytest.approx(127.5, abs=1)


# -- colors


def srgb() -> bytes:
    from PIL import ImageCms

    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile


def swapped() -> bytes:
    """A profile whose first primary is green, and the second red."""
    return srgb().replace(b"rXYZ", b"    ").replace(b"gXYZ", b"rXYZ").replace(b"    ", b"gXYZ")


def profiled(color: tuple[int, ...], mode: str, profile: bytes, kind: str, **options: Any) -> Any:
    from PIL import Image

    data = encode_image(Image.new(mode, (32, 32), color), kind, icc_profile=profile, **options)
    return np.asarray(read_picture(data, 512).rgb)[16, 16].tolist()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})],
)
def test_a_profile_is_applied(kind: str, options: dict[str, Any]) -> None:
    for color, shown in (((200, 40, 90), (40, 200, 90)), ((10, 250, 128), (250, 10, 128))):
        assert np.abs(np.array(profiled(color, "RGB", swapped(), kind, **options)) - shown).max() <= 4


def test_a_profile_lies_under_transparency() -> None:
    seen = profiled((200, 40, 90, 128), "RGBA", swapped(), "PNG")
    # Half of (40, 200, 90) over white.
    assert np.abs(np.array(seen) - (147, 227, 172)).max() <= 3


def test_a_profile_that_does_not_fit_is_ignored() -> None:
    assert profiled((90,), "L", swapped(), "PNG") == [90, 90, 90]
    assert profiled((200, 40, 90), "RGB", b"no profile" * 20, "PNG") == [200, 40, 90]


def test_srgb_changes_no_pixel() -> None:
    assert profiled((200, 40, 90), "RGB", srgb(), "PNG") == [200, 40, 90]


# -- decoders


def test_an_openexr_is_laid_over_white() -> None:
    """Light is multiplied by its alpha: 0.25 of red light at an alpha of 0.5 is 0.75, 0.5, 0.5.

    0.75 and 0.5 of light are 225 and 188 in sRGB (IEC 61966-2-1).
    """
    import av

    frame = av.VideoFrame(16, 16, "gbrapf32le")
    for plane, light in zip(frame.planes, (0.0, 0.0, 0.25, 0.5), strict=True):  # G, B, R, A
        plane.update(np.full(plane.buffer_size // 4, light, np.float32).tobytes())
    codec: Any = av.CodecContext.create("exr", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 16, 16, "gbrapf32le", Fraction(1, 25)
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    assert read_picture(data, 16).rgb.getpixel((8, 8)) == (225, 188, 188)


def test_jpeg_xl_is_refused_by_name() -> None:
    for head in (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"):
        with pytest.raises(SampleError, match=r"unsupported_format.*JPEG XL \(image/jxl\)"):
            IMAGE.probe(head + bytes(100))


def test_a_type_names_its_decoders() -> None:
    """Of no type does a decoder run that starts programs (EPS, WMF) or leads to other files."""
    named = {name for item in DECODERS.values() for name in item.pillow}
    assert not named & {"EPS", "WMF", "MPEG", "FLI", "IPTC", "BUFR", "GRIB", "HDF5"}
    assert DECODERS["image/jpeg"].pillow == ("JPEG",)
    with pytest.raises(SampleError, match="no decoder here reads a file of GIMP"):
        IMAGE.probe(b"gimp xcf v001\0" + bytes(200))
