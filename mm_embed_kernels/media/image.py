"""Pictures of untrusted bytes, read by Pillow, or by FFmpeg (PyAV) where Pillow does not know the format.

Of a damaged picture, the rows that can be decoded are read.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.library_errors import library_error, pillow_error

if TYPE_CHECKING:
    from PIL import Image

# A picture of 24,000 x 7,500: 540 MB decoded, a few seconds. A JPEG is decoded at down to an eighth of its
# size and may have 64 times as many.
MAX_PIXELS = 180_000_000
# No camera's coding stores ten pixels in one bit: a file that does was made to fill memory, or is empty.
_BOMB_PIXELS_PER_BYTE = 80
# Errors that Pillow's decoders raise for damaged bytes.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error)
_END_MARKERS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"), (b"GIF8", b"\x3b"))
_EXIF_IFD, _EXIF_TAKEN, _EXIF_CHANGED = 0x8769, 0x9003, 0x0132
_DEMUXERS = (
    "bmp_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif,hdr_pipe,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,"
    "jpegxl_anim,mov,mp4,pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,phm_pipe,pictor_pipe,png_pipe,apng,ppm_pipe,"
    "psd_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,svs_pipe,tiff_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe"
)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: RGB, transparency laid over white, not yet turned upright; of a damaged picture, its readable
            rows.
        width: pixels, as the header states.
        height: pixels, as the header states.
        mode: Pillow's (or FFmpeg's) name of the pixel format.
        kind: Pillow's (or FFmpeg's) name of the container's format.
        frames: of an animation, else 1.
        captured_at: EXIF time of capture; its missing time zone is read as UTC.
        decoder: ``pillow`` or ``ffmpeg``.
        read_share: share of the rows that were read.
        exif: tags, for `upright`.
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
    exif: Any = None
    defect: SampleError | None = None

    @property
    def upright(self) -> Image.Image:
        """The pixels as the camera was held."""
        from PIL import ImageOps

        self.rgb.info, self.rgb.getexif = {}, lambda: self.exif  # type: ignore[method-assign]
        return ImageOps.exif_transpose(self.rgb) if self.exif else self.rgb


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
        return _read_by_pillow(data, side)
    except SampleError as refused:
        # FFmpeg would decode damaged bytes, too, into something: it reads only formats that Pillow does not
        # know.
        if refused.error_class != "unsupported_format":
            raise
        try:
            return _read_by_ffmpeg(data)
        except SampleError as error:
            raise (
                error if error.error_class in ("too_large", "decompression_bomb", "memory_limit") else refused
            ) from error


def stated_size(data: bytes) -> tuple[int, int]:
    """Return width and height by the header; decodes nothing that Pillow can open.

    Raises:
        SampleError: as `read_picture`.
    """
    try:
        with open_image(data) as image:
            size = image.size
            image.draft("RGB", (1, 1))
            check_size(*image.size, data)
            return size
    except SampleError as refused:
        if refused.error_class not in ("unsupported_format", "decode_error"):
            raise
        picture = read_picture(data, 1)
        return picture.width, picture.height


def open_image(data: bytes) -> Image.Image:
    """Open an image by Pillow without decoding it.

    Raises:
        SampleError: ``unsupported_format``, ``truncated`` or ``decode_error``.
    """
    from PIL import Image, UnidentifiedImageError

    with _lift_pillow_limit(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            if _is_short(data):
                raise SampleError("truncated", "it ends before its table of contents") from error
            raise SampleError(
                "unsupported_format", "the bytes have an image's signature, but Pillow reads no image in them"
            ) from error
        except _PILLOW_ERRORS as error:
            raise pillow_error(error, partial(_is_cut_off, data)) from error


@contextmanager
def _lift_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size that a header states; `check_size` limits the size that is decoded."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def check_size(width: int, height: int, data: bytes) -> None:
    """Check that a picture has no more pixels than are decoded.

    Raises:
        SampleError: ``too_large`` or ``decompression_bomb``.
    """
    if (pixels := width * height) > MAX_PIXELS:
        bomb = pixels > _BOMB_PIXELS_PER_BYTE * len(data)
        raise SampleError(
            "decompression_bomb" if bomb else "too_large",
            f"{width:,} x {height:,} = {pixels:,} pixels in {len(data):,} bytes; "
            f"up to {MAX_PIXELS:,} are decoded",
        )


def _read_by_pillow(data: bytes, side: int) -> Picture:
    with open_image(data) as image:
        width, height, mode, kind = *image.size, image.mode, str(image.format)
        image.draft("RGB", (side, side))
        check_size(*image.size, data)
        try:
            with _lift_pillow_limit():
                frames = max(1, getattr(image, "n_frames", 1))  # a PSD without layers has none
                image.load()
                rgb, share, defect = _to_rgb(image), 1.0, None
        except _PILLOW_ERRORS as error:
            if image.size != (width, height) and width * height <= MAX_PIXELS:
                # A lossless JPEG states that it can be decoded at a smaller size, and cannot.
                whole = _read_by_pillow(data, max(width, height))
                if whole.defect is None:
                    return whole
            defect = pillow_error(error, partial(_is_cut_off, data))
            rgb, share = _readable_rows(data, side, defect)
            frames = 1
        # After the pixels: reading EXIF may decode, and must not hide that decoding fails.
        exif = _exif_tags(image)
    return Picture(rgb, width, height, mode, kind, frames, _captured_at(exif), "pillow", share, exif, defect)


def _readable_rows(data: bytes, side: int, defect: SampleError) -> tuple[Image.Image, float]:
    """Return the rows of a damaged picture that can be decoded, and their share.

    Pillow does not mark the rows that it never reached. The picture is decoded over two grounds: rows that
    are equal in both were decoded.

    Raises:
        SampleError: `defect`, where there are none.
    """
    import numpy as np
    from PIL import Image, ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        decoded = []
        for ground in (0, 255):
            with open_image(data) as image, _lift_pillow_limit():
                image.draft("RGB", (side, side))
                bands = len(image.getbands())
                image.im = Image.core.fill(image.mode, image.size, (ground,) * bands if bands > 1 else ground)
                # A JPEG's own `load_read` would end the file properly, upon which libjpeg paints the rest
                # gray.
                image.load_read = image.fp.read  # type: ignore[attr-defined]
                image.load()
                decoded.append(image.copy())
    except _PILLOW_ERRORS:
        raise defect from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    one, other = (np.asarray(item) for item in decoded)
    equal = (one == other).reshape(len(one), -1).all(axis=1)
    # A BMP begins with its lowest row.
    first, last = (
        (0, _count_leading(equal)) if equal[0] else (len(equal) - _count_leading(equal[::-1]), len(equal))
    )
    if first == last:
        raise defect
    return _to_rgb(decoded[0].crop((0, first, decoded[0].width, last))), (last - first) / len(equal)


def _count_leading(flags: Any) -> int:
    """Return the number of true flags before the first false one."""
    return len(flags) if flags.all() else int(flags.argmin())


def _read_by_ffmpeg(data: bytes) -> Picture:
    import av
    from PIL import Image

    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace", options=options) as container:
            if not container.streams.video:
                raise SampleError("unsupported_format", "FFmpeg reads no picture in it")
            track = container.streams.video[0]
            if track.codec_context is None:
                raise SampleError("unsupported_format", "FFmpeg has no decoder for it")
            check_size(track.codec_context.width, track.codec_context.height, data)
            # Refuse damaged pictures instead of decoding a part of them.
            track.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            frame = next(container.decode(track), None)
            if frame is None:
                raise SampleError("decode_error", "FFmpeg finds no frame in it")
            layered = Image.fromarray(frame.to_ndarray(format="rgba"), "RGBA")
            return Picture(
                _to_rgb(layered),
                frame.width,
                frame.height,
                frame.format.name,
                track.codec_context.name,
                decoder="ffmpeg",
            )
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise library_error(error, "FFmpeg reads no picture in it") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as RGB, transparency laid over white."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _is_cut_off(data: bytes) -> bool:
    """Return whether the end of a file is missing: its end marker, or bytes that its container states."""
    marker = next((end for start, end in _END_MARKERS if data.startswith(start)), b"")
    return marker not in data[-64:] or _is_short(data)


def _is_short(data: bytes) -> bool:
    """Return whether a container (WebP, AVIF, TIFF) states more bytes than there are."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        # The first directory of a TIFF mostly follows its pixels.
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    return ends_early(io.BytesIO(data))


def _scale_deep(image: Image.Image) -> Image.Image:
    """Scale 16- and 32-bit pixels to 8 bits by their own range, where Pillow's `convert` would clip them."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image, dtype=np.float64)
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    pixels = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
    scaled = (pixels - low) * (255.0 / (high - low)) if high > low else np.zeros_like(pixels)
    return Image.fromarray(scaled.astype(np.uint8))


def _exif_tags(image: Image.Image) -> Any:
    """Return the EXIF tags, None where they are damaged."""
    try:
        return image.getexif()
    except Exception:  # noqa: BLE001 - EXIF parsers raise anything; the tags are optional
        return None


def _captured_at(exif: Any) -> datetime | None:
    try:
        stamp = exif.get_ifd(_EXIF_IFD).get(_EXIF_TAKEN) or exif.get(_EXIF_CHANGED)
        return datetime.strptime(str(stamp).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # noqa: BLE001 - as above
        return None
