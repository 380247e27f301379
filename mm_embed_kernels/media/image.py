"""Pictures of untrusted bytes, read by Pillow, or by FFmpeg (PyAV) where Pillow does not know the format.

Of a damaged picture, the rows that can be decoded are read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.clean_aperture import clean_aperture
from mm_embed_kernels.media.ffmpeg_pixels import frame_to_rgb
from mm_embed_kernels.media.image_file import (
    MAX_DEEP_PIXELS,
    MAX_PIXELS,
    PILLOW_ERRORS,
    check_size,
    is_cut_off,
    lift_pillow_limit,
    open_image,
)
from mm_embed_kernels.media.library_errors import library_error, pillow_error
from mm_embed_kernels.media.media_type import HEAD_BYTES, sniff
from mm_embed_kernels.media.picture_formats import Decoders, decoders_of
from mm_embed_kernels.media.pixels import (
    ORIENTATION,
    bands_of,
    to_rgb,
    turn_upright,
    turns_aside,
)
from mm_embed_kernels.media.still_png import still_png

if TYPE_CHECKING:
    from PIL import Image

# Formats whose decoders give all pixels or none, and those whose decoders turn them.
_DECODED_AT_ONCE, _TURNED_BY_DECODER = ("AVIF", "HEIF", "WEBP"), ("HEIF", "TIFF")
# TIFF tag of how samples are arranged, and its value for planes.
_PLANES, _APART = 284, 2
_EXIF_IFD, _EXIF_TAKEN, _EXIF_CHANGED = 0x8769, 0x9003, 0x0132


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: RGB in sRGB, transparency laid over white, turned as the camera was held; of a damaged picture,
            its readable rows.
        width: pixels, as displayed; of a large JPEG more than `rgb` has.
        height: likewise.
        mode: Pillow's (or FFmpeg's) name of the pixel format.
        kind: Pillow's (or FFmpeg's) name of the container's format.
        frames: of an animation, else 1.
        captured_at: EXIF time of capture; its missing time zone is read as UTC.
        decoder: ``pillow`` or ``ffmpeg``.
        read_share: share of the rows that were read.
        defect: why the other rows could not be read.
    """

    rgb: Image.Image
    width: int
    height: int
    mode: str
    kind: str
    frames: int = 1
    captured_at: datetime | None = None
    decoder: str = "pillow"
    read_share: float = 1.0
    defect: SampleError | None = None


def read_picture(data: bytes, side: int) -> Picture:
    """Read the first frame of a picture, as far as it can be decoded.

    Args:
        data: the file.
        side: a large JPEG is decoded at the smallest size whose sides are not below this, pixels.

    Raises:
        SampleError: ``unsupported_format``, ``truncated``, ``decode_error``, ``memory_limit``, ``too_large``
            or ``decompression_bomb``.
    """
    try:
        picture = _read_by_pillow(data, side)
        still = still_png(data) if picture.defect else None
        return (still and _read_still(still, side)) or picture
    except SampleError as refused:
        still = still_png(data) if refused.error_class == "decode_error" else None
        if still and (found := _read_still(still, side)):
            return found
        # FFmpeg would decode damaged bytes, too, into something: it reads only formats that Pillow does not
        # know.
        decoders = decoders_of(sniff(data[:HEAD_BYTES]))
        if refused.error_class != "unsupported_format" or not decoders.demuxers:
            raise
        try:
            return _read_by_ffmpeg(data, decoders)
        except SampleError as error:
            raise (
                error if error.error_class in ("too_large", "decompression_bomb", "memory_limit") else refused
            ) from error


def _read_still(data: bytes, side: int) -> Picture | None:
    """Return the picture that stands before a damaged animation; None where it is damaged itself."""
    try:
        picture = _read_by_pillow(data, side)
    except SampleError:
        return None
    return None if picture.defect else picture


def stated_pixels(data: bytes) -> int:
    """Return the number of pixels by the header; decodes nothing that Pillow can open.

    Raises:
        SampleError: as `read_picture`.
    """
    try:
        with open_image(data) as image:
            width, height = image.size
            image.draft("RGB", (1, 1))
            check_size(*image.size, data)
            return width * height
    except SampleError as refused:
        if refused.error_class not in ("unsupported_format", "decode_error"):
            raise
        picture = read_picture(data, 1)
        return picture.width * picture.height


def _read_by_pillow(data: bytes, side: int) -> Picture:
    with open_image(data) as image:
        width, height, mode, kind = *image.size, image.mode, str(image.format)
        if kind == "JPEG2000" and len(image.getbands()) > 1 and _jpeg2000_bits(data) > 8:
            # Pillow's shift to 8 bits rounds white up to black.
            return _read_by_ffmpeg(data, decoders_of(sniff(data[:HEAD_BYTES])))
        if kind == "TIFF" and mode in ("LA", "La") and image.tag_v2.get(_PLANES) == _APART:  # type: ignore[attr-defined]
            # Pillow writes the plane of alpha to where it is not read.
            raise SampleError("unsupported_format", "Pillow reads no alpha of grays in a plane of its own")
        if kind == "PNG" and isinstance(key := image.info.get("transparency"), int) and data[24] in (2, 4):
            # Pillow scales samples of two and four bits to eight, but not the gray that is transparent.
            image.info["transparency"] = key * (255 // (2 ** data[24] - 1))
        image.draft("RGB", (side, side))
        check_size(*image.size, data)
        if kind == "HEIF" and is_cut_off(data):
            # libheif paints the tiles that are missing.
            raise SampleError("truncated", "the file is cut off inside its container")
        tiles = getattr(image, "tile", [])
        covered = tiles[0].extents if kind == "GIF" and tiles else None
        try:
            with lift_pillow_limit():
                frames = max(1, getattr(image, "n_frames", 1))  # a PSD without layers has none
                image.load()
                rgb, share, defect = to_rgb(image), 1.0, None
        except PILLOW_ERRORS as error:
            if image.size != (width, height) and width * height <= MAX_PIXELS:
                # A lossless JPEG states that it can be decoded at a smaller size, and cannot.
                whole = _read_by_pillow(data, max(width, height))
                if whole.defect is None:
                    return whole
            defect = pillow_error(error, partial(is_cut_off, data))
            rgb, share = _readable_rows(data, side, defect)
            frames = 1
        # After the pixels: reading EXIF may decode, and must not hide that decoding fails.
        exif = _exif_tags(image)
        orientation = _orientation(image, exif)
    if covered and defect is None and covered != (0, 0, *rgb.size):
        # Around the first frame of an animation there is nothing, which Pillow paints black.
        rgb = _over_white(rgb, covered)
    if kind == "AVIF" and (part := clean_aperture(data, *rgb.size)):
        rgb = rgb.crop(part)
        width, height = rgb.size
    if turns_aside(orientation):
        width, height = height, width
    return Picture(
        turn_upright(rgb, orientation),
        width,
        height,
        mode,
        kind,
        frames,
        _captured_at(exif),
        read_share=share,
        defect=defect,
    )


def _over_white(rgb: Image.Image, covered: tuple[int, int, int, int]) -> Image.Image:
    """Return a picture in which all but a part is white."""
    from PIL import Image

    ground = Image.new("RGB", rgb.size, "white")
    ground.paste(rgb.crop(covered), covered[:2])
    return ground


def _jpeg2000_bits(data: bytes) -> int:
    """Return the bits of a sample of the first component (ISO 15444-1, A.5.1); 0 where none is stated."""
    place = data.find(b"\xff\x4f\xff\x51")
    stated = data[place + 42 : place + 43] if place >= 0 else b""
    return (stated[0] & 0x7F) + 1 if stated else 0


def _readable_rows(data: bytes, side: int, defect: SampleError) -> tuple[Image.Image, float]:
    """Return the rows of a damaged picture that can be decoded, and their share.

    Pillow does not mark the rows that it never reached. The picture is decoded over two grounds: rows that
    are equal in both were decoded. A TIFF is turned upright, as it is by Pillow.

    Raises:
        SampleError: `defect`, where there are none.
    """
    import numpy as np
    from PIL import Image, ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        decoded = []
        for ground in (0, 255):
            with open_image(data) as image, lift_pillow_limit():
                if image.format in _DECODED_AT_ONCE:
                    raise defect
                image.draft("RGB", (side, side))
                bands = len(image.getbands())
                size = getattr(image, "_tile_size", image.size)
                image.im = Image.core.fill(image.mode, size, (ground,) * bands if bands > 1 else ground)
                # A JPEG's own `load_read` would end the file properly, upon which libjpeg paints the rest
                # gray. A TIFF's `load_end` turns it, and rows would be columns.
                image.load_read = image.fp.read  # type: ignore[attr-defined]
                if image.format == "TIFF":
                    image.load_end = lambda: None  # type: ignore[attr-defined]
                    image._size = size
                image.load()
                decoded.append(image.copy())
                tags = getattr(image, "tag_v2", {})
    except PILLOW_ERRORS:
        raise defect from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    one, other = decoded
    equal = np.concatenate([_equal_rows(one, other, top, end) for top, end in bands_of(*one.size)])
    # A BMP begins with its lowest row.
    first, last = (
        (0, _count_leading(equal)) if equal[0] else (len(equal) - _count_leading(equal[::-1]), len(equal))
    )
    if first == last:
        raise defect
    rows = to_rgb(decoded[0].crop((0, first, decoded[0].width, last)), image)
    return turn_upright(rows, tags.get(ORIENTATION, 1)), (last - first) / len(equal)


def _equal_rows(one: Image.Image, other: Image.Image, top: int, end: int) -> Any:
    """Return which of the rows from `top` to `end` are equal in two pictures of one size."""
    import numpy as np

    first, second = (np.asarray(item.crop((0, top, item.width, end))) for item in (one, other))
    return (first == second).reshape(end - top, -1).all(axis=1)


def _count_leading(flags: Any) -> int:
    """Return the number of true flags before the first false one."""
    return len(flags) if flags.all() else int(flags.argmin())


def _read_by_ffmpeg(data: bytes, decoders: Decoders) -> Picture:
    import av

    options = {
        "format_whitelist": decoders.demuxers,
        "codec_whitelist": decoders.codecs,
        "protocol_whitelist": "none",
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        # FFmpeg does not recognize a PAM by its bytes.
        kind = "pam_pipe" if data.startswith(b"P7\n") and "pam_pipe" in decoders.demuxers else None
        with av.open(
            io.BytesIO(data), "r", format=kind, metadata_errors="replace", options=options
        ) as container:
            if not container.streams.video:
                raise SampleError("unsupported_format", "FFmpeg reads no picture in it")
            track = container.streams.video[0]
            if track.codec_context is None or track.codec_context.name not in decoders.codecs.split(","):
                raise SampleError("unsupported_format", "FFmpeg has no decoder for it")
            check_size(track.codec_context.width, track.codec_context.height, data, MAX_DEEP_PIXELS)
            # Refuse damaged pictures instead of decoding a part of them.
            track.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            frame = next(container.decode(track), None)
            if frame is None:
                raise SampleError("decode_error", "FFmpeg finds no frame in it")
            return Picture(
                frame_to_rgb(frame, track.codec_context.name),
                frame.width,
                frame.height,
                frame.format.name,
                track.codec_context.name,
                decoder="ffmpeg",
            )
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise library_error(error, "FFmpeg reads no picture in it") from error


def _exif_tags(image: Image.Image) -> Any:
    """Return the EXIF tags, None where they are damaged."""
    try:
        return image.getexif()
    except Exception:  # noqa: BLE001 - EXIF parsers raise anything; the tags are optional
        return None


def _orientation(image: Image.Image, exif: Any) -> int:
    """Return how the decoded pixels lie, 1 to 8; 1 where the decoder has turned them already.

    In AVIF the container's rotation counts, which Pillow states as EXIF. The orientation of the XMP, which
    Pillow reads where there is no EXIF, is what no viewer goes by.
    """
    if exif is None or image.format in _TURNED_BY_DECODER:
        return 1
    if "Raw profile type exif" not in image.info:
        stated = type(exif)()
        try:
            stated.load(image.info.get("exif") or b"")
        except Exception:  # noqa: BLE001 - as in `_exif_tags`
            return 1
        exif = stated
    value = exif.get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _captured_at(exif: Any) -> datetime | None:
    try:
        stamp = exif.get_ifd(_EXIF_IFD).get(_EXIF_TAKEN) or exif.get(_EXIF_CHANGED)
        return datetime.strptime(str(stamp).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # noqa: BLE001 - as above
        return None
