"""Files of pictures as Pillow opens them: the decoders that a type allows, limits on size, missing ends."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.fits_values import fits_values
from mm_embed_kernels.media.library_errors import pillow_error
from mm_embed_kernels.media.media_type import HEAD_BYTES, sniff
from mm_embed_kernels.media.picture_formats import decoders_of
from mm_embed_kernels.media.unread_samples import describe_samples
from mm_embed_kernels.media.xpm_colors import plain_xpm

if TYPE_CHECKING:
    from PIL import Image

# A picture of 24,000 x 7,500: 540 MB decoded, a few seconds. A JPEG is decoded at down to an eighth of its
# size and may have 64 times as many.
MAX_PIXELS = 180_000_000
# Likewise of one that FFmpeg decodes: to floats or 16 bits, with layers, twenty bytes a pixel.
MAX_DEEP_PIXELS = 100_000_000
# No camera's coding stores ten pixels in one bit: a file that does was made to fill memory, or is empty.
_BOMB_PIXELS_PER_BYTE = 80
# Bytes of one compressed text in a PNG; Pillow limits those of all to 64 MB.
_TEXT_BYTES = 32 << 20
# Errors that Pillow's decoders raise for damaged bytes.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, RuntimeError, struct.error)
_END_MARKERS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"), (b"GIF8", b"\x3b"))


def open_image(data: bytes) -> Image.Image:
    """Open an image by the decoders of Pillow that its media type allows, without decoding it.

    Raises:
        SampleError: ``unsupported_format``, ``truncated`` or ``decode_error``.
    """
    from PIL import Image, UnidentifiedImageError

    mime = sniff(data[:HEAD_BYTES])
    formats = decoders_of(mime).pillow
    if not formats:
        raise SampleError("unsupported_format", f"Pillow has no decoder for {mime}")
    if "HEIF" in formats:
        _register_heif()
    if formats == ("XPM",):
        data = plain_xpm(data)
    with lift_pillow_limit(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
            if formats == ("FITS",):
                image.info["fits"] = fits_values(data)
            return image
        except UnidentifiedImageError as error:
            if _is_short(data):
                raise SampleError("truncated", "it ends before its table of contents") from error
            kind = describe_samples(data)
            raise SampleError(
                "unsupported_format",
                f"it is {kind}, which no decoder here reads; convert it to RGB or grays of 8 or 16 bits"
                if kind
                else "the bytes have an image's signature, but Pillow reads no image in them",
            ) from error
        except PILLOW_ERRORS as error:
            raise pillow_error(error, partial(is_cut_off, data)) from error


@cache
def _register_heif() -> None:
    """Make HEIF, which libheif reads, known to Pillow."""
    import pi_heif  # loads libheif

    pi_heif.register_heif_opener()


@contextmanager
def lift_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size that a header states; `check_size` limits the size that is decoded.

    A PNG may hold more text than Pillow allows, as programs write it that keep their history in it.
    """
    from PIL import Image, PngImagePlugin

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    text, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, _TEXT_BYTES
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before, text


def check_size(width: int, height: int, data: bytes, most: int = MAX_PIXELS) -> None:
    """Check that a picture has no more pixels than are decoded.

    Args:
        width: pixels.
        height: pixels.
        data: the file.
        most: pixels that are decoded.

    Raises:
        SampleError: ``too_large`` or ``decompression_bomb``.
    """
    if (pixels := width * height) > most:
        bomb = pixels > _BOMB_PIXELS_PER_BYTE * len(data)
        raise SampleError(
            "decompression_bomb" if bomb else "too_large",
            f"{width:,} x {height:,} = {pixels:,} pixels in {len(data):,} bytes; up to {most:,} are decoded",
        )


def is_cut_off(data: bytes) -> bool:
    """Return whether the end of a file is missing: its end marker, or bytes that its container states."""
    marker = next((end for start, end in _END_MARKERS if data.startswith(start)), b"")
    return marker not in data[-64:] or _is_short(data)


def _is_short(data: bytes) -> bool:
    """Return whether a container (WebP, AVIF, TIFF) states more bytes than there are."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        # The first directory of a TIFF mostly follows its pixels.
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    return ends_early(io.BytesIO(data))
