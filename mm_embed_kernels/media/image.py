"""Pictures from untrusted bytes: read by Pillow, or by FFmpeg (PyAV) what Pillow refuses; of a half picture, its first rows."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import broken, ends_early, out_of_memory

if TYPE_CHECKING:
    from PIL import Image as pillow

# A picture of 24,000 x 7,500: 540 MB decoded, a few seconds. A JPEG is decoded at an eighth of its size and may have 64 times as many.
MOST_PIXELS = 180_000_000
# No camera's coding says ten pixels in one bit; what does so was made to fill memory, or is empty.
_BOMB_PIXELS_PER_BYTE = 80
# What Pillow's decoders raise for damaged bytes.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error)
_END_MARKERS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"), (b"GIF8", b"\x3b"))
_EXIF_IFD, _EXIF_TAKEN, _EXIF_CHANGED = 0x8769, 0x9003, 0x0132
_DEMUXERS = (
    "bmp_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif,hdr_pipe,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,jpegxl_anim,mov,mp4,pam_pipe,"
    "pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,phm_pipe,pictor_pipe,png_pipe,apng,ppm_pipe,psd_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,svs_pipe,"
    "tiff_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe"
)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: RGB, transparency laid over white, not yet turned upright; of a half picture, the rows that could be read.
        width, height: pixels, as the header states them.
        mode, kind: Pillow's (or FFmpeg's) names of the pixels' and the container's format.
        frames: of an animation, else 1.
        captured_at: EXIF time of capture; its missing time zone is read as UTC.
        decoder: ``pillow`` or ``ffmpeg``.
        read_share: rows that could be read among all.
        exif: the tags, for `upright`.
        defect: why the rest could not be read.
    """

    rgb: pillow.Image
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
    def upright(self) -> pillow.Image:
        """The pixels as the camera was held."""
        from PIL import ImageOps

        self.rgb.info, self.rgb.getexif = {}, lambda: self.exif  # type: ignore[method-assign]
        return ImageOps.exif_transpose(self.rgb) if self.exif else self.rgb


def read_picture(data: bytes, side: int) -> Picture:
    """The first frame of a picture, as far as it can be read.

    Args:
        side: a large JPEG is decoded at the smallest size whose sides are not below this.

    Raises:
        SampleError: ``unsupported_format``, ``truncated``, ``decode_error``, ``memory_limit``, ``too_large`` or ``decompression_bomb``.
    """
    try:
        return _by_pillow(data, side)
    except SampleError as refused:
        # FFmpeg would decode damaged bytes, too, into something: it is asked for what Pillow does not know.
        if refused.error_class != "unsupported_format":
            raise
        try:
            return _by_ffmpeg(data)
        except SampleError as error:
            raise (
                error if error.error_class in ("too_large", "decompression_bomb", "memory_limit") else refused
            ) from error


def stated_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header; nothing is decoded. Raises as `read_picture`."""
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


def open_image(data: bytes) -> pillow.Image:
    """Open (not yet decode) an image by Pillow.

    Raises:
        SampleError: ``unsupported_format``, ``truncated`` or ``decode_error``.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    with _any_size(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return pillow.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            if _is_short(data):
                raise SampleError("truncated", "it ends before its table of contents") from error
            raise SampleError(
                "unsupported_format", "the bytes have an image's signature, but Pillow reads no image in them"
            ) from error
        except _BROKEN as error:
            raise _broken(error, data) from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Pillow's own limit is on the size that a header states; ours is on the size that is decoded."""
    from PIL import Image as pillow

    before, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        pillow.MAX_IMAGE_PIXELS = before


def check_size(width: int, height: int, data: bytes) -> None:
    """Raises: SampleError, ``too_large`` or ``decompression_bomb``, for more pixels than are decoded."""
    if (pixels := width * height) > MOST_PIXELS:
        bomb = pixels > _BOMB_PIXELS_PER_BYTE * len(data)
        told = f"{width:,} x {height:,} = {pixels:,} pixels in {len(data):,} bytes; up to {MOST_PIXELS:,} are decoded"
        raise SampleError("decompression_bomb" if bomb else "too_large", told)


def _by_pillow(data: bytes, side: int) -> Picture:
    with open_image(data) as image:
        width, height, mode, kind = *image.size, image.mode, str(image.format)
        image.draft("RGB", (side, side))
        check_size(*image.size, data)
        try:
            with _any_size():
                frames = max(1, getattr(image, "n_frames", 1))  # a PSD without layers has none
                image.load()
                rgb, share, defect = _flat(image), 1.0, None
        except _BROKEN as error:
            if image.size != (width, height) and width * height <= MOST_PIXELS:
                # A lossless JPEG states that it can be decoded smaller, and cannot.
                whole = _by_pillow(data, max(width, height))
                if whole.defect is None:
                    return whole
            defect = _broken(error, data)
            rgb, share = _readable_rows(data, side, defect)
            frames = 1
        # After the pixels: reading EXIF may decode, and must not hide that decoding fails.
        exif = _exif(image)
    return Picture(rgb, width, height, mode, kind, frames, _captured_at(exif), "pillow", share, exif, defect)


def _readable_rows(data: bytes, side: int, defect: SampleError) -> tuple[pillow.Image, float]:
    """The rows that a broken picture still gives, and their share.

    Pillow does not tell them from those that it never reached: they are the ones that come out alike over two grounds.

    Raises:
        SampleError: `defect`, where there are none.
    """
    import numpy as np
    from PIL import Image as pillow
    from PIL import ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        found = []
        for ground in (0, 255):
            with open_image(data) as image, _any_size():
                image.draft("RGB", (side, side))
                bands = len(image.getbands())
                image.im = pillow.core.fill(
                    image.mode, image.size, (ground,) * bands if bands > 1 else ground
                )
                # A JPEG's would end the file properly, upon which libjpeg paints the rest grey.
                image.load_read = image.fp.read  # type: ignore[attr-defined]
                image.load()
                found.append(image.copy())
    except _BROKEN:
        raise defect from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    one, other = (np.asarray(item) for item in found)
    alike = (one == other).reshape(len(one), -1).all(axis=1)
    # A BMP begins with its lowest row.
    first, last = (0, _run(alike)) if alike[0] else (len(alike) - _run(alike[::-1]), len(alike))
    if first == last:
        raise defect
    return _flat(found[0].crop((0, first, found[0].width, last))), (last - first) / len(alike)


def _run(alike: Any) -> int:
    """How many of the first are true."""
    return len(alike) if alike.all() else int(alike.argmin())


def _by_ffmpeg(data: bytes) -> Picture:
    import av
    from PIL import Image as pillow

    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "max_pixels": str(MOST_PIXELS)}
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace", options=options) as container:
            if not container.streams.video:
                raise SampleError("unsupported_format", "FFmpeg reads no picture in it")
            track = container.streams.video[0]
            if track.codec_context is None:
                raise SampleError("unsupported_format", "FFmpeg has no decoder for it")
            check_size(track.codec_context.width, track.codec_context.height, data)
            # As a whole or not at all.
            track.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            frame = next(container.decode(track), None)
            if frame is None:
                raise SampleError("decode_error", "FFmpeg finds no frame in it")
            layered = pillow.fromarray(frame.to_ndarray(format="rgba"), "RGBA")
            return Picture(
                _flat(layered),
                frame.width,
                frame.height,
                frame.format.name,
                track.codec_context.name,
                decoder="ffmpeg",
            )
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise broken(error, "FFmpeg reads no picture in it") from error


def _flat(image: pillow.Image) -> pillow.Image:
    """A loaded image as RGB, transparency laid over white."""
    from PIL import Image as pillow

    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = pillow.new("RGBA", layered.size, "white")
        return pillow.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _broken(error: BaseException, data: bytes) -> SampleError:
    """Why Pillow cannot read an image: no memory, cut off, or damaged inside."""
    told = f"{type(error).__name__}: {error}"
    if out_of_memory(told):
        return SampleError("memory_limit", told)
    if isinstance(error, NotImplementedError) or re.search(
        r"unsupported|not supported|unknown|unrecogni[sz]ed|cannot handle", told, re.I
    ):
        return SampleError("unsupported_format", told)
    marker = next((end for start, end in _END_MARKERS if data.startswith(start)), b"")
    cut = (
        isinstance(error, EOFError)
        or "truncated" in told.lower()
        or marker not in data[-64:]
        or _is_short(data)
    )
    return SampleError("truncated" if cut else "decode_error", told)


def _is_short(data: bytes) -> bool:
    """Whether a container (WebP, AVIF, TIFF) speaks of more bytes than there are."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        # A TIFF's first directory mostly stands behind its pixels.
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    return ends_early(io.BytesIO(data))


def _scale_deep(image: pillow.Image) -> pillow.Image:
    """16- and 32-bit pixels to 8 bits by their own range (Pillow's convert would clip them)."""
    import numpy as np
    from PIL import Image as pillow

    pixels = np.asarray(image, dtype=np.float64)
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    pixels = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
    scaled = (pixels - low) * (255.0 / (high - low)) if high > low else np.zeros_like(pixels)
    return pillow.fromarray(scaled.astype(np.uint8))


def _exif(image: pillow.Image) -> Any:
    """The EXIF tags. Damaged ones mean none, not a failed image."""
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
