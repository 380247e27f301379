"""Images: decoded by Pillow, described by size, exposure, entropy, sharpness and perceptual hashes."""

from __future__ import annotations

import io
import struct
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities.base import Modality, Segment

if TYPE_CHECKING:
    from PIL import Image as pillow

_SIGNAL_PIXELS = 256
# What Pillow's decoders raise for damaged bytes.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_END_MARKERS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"), (b"GIF8", b"\x3b"))
_EXIF_IFD, _EXIF_TAKEN, _EXIF_CHANGED = 0x8769, 0x9003, 0x0132


class Image(Modality):
    """Still and animated raster images (an animation counts as its first frame)."""

    name = "image"
    embedder = "conse"
    hub_embedder = "open_clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    libraries = ("pillow", "ImageHash", "filetype")
    probe_seconds = 0.02
    probe_version = "2"
    segment_seconds = 0.002
    signals: ClassVar[list[pa.Field]] = [
        field("format", pa.string(), "Pillow's name of the container format"),
        field("mode", pa.string(), "Pillow's pixel mode"),
        field("frames", pa.int64(), "frames of an animation, else 1", ge=1),
        field("brightness", pa.float64(), "mean luma, 0 to 255", ge=0, le=255),
        field("contrast", pa.float64(), "standard deviation of luma", ge=0),
        field("entropy", pa.float64(), "Shannon entropy of the luma histogram, bits", ge=0, le=8),
        field("sharpness", pa.float64(), "variance of the Laplacian of luma (Pech-Pacheco et al., 2000)", ge=0),
        field("phash", pa.string(), "64-bit perceptual hash (DCT), hex"),
        field("dhash", pa.string(), "64-bit difference hash, hex"),
    ]

    def claims(self, mime: str) -> bool:
        return mime.startswith("image/") and mime != "image/svg+xml"

    def probe(self, data: bytes) -> dict[str, Any]:
        import imagehash
        import numpy as np

        mime = self.require(data)
        with open_image(data) as image:
            size, mode, kind = image.size, image.mode, image.format
            frames = getattr(image, "n_frames", 1)
            image.draft("RGB", (_SIGNAL_PIXELS, _SIGNAL_PIXELS))
            flat = flatten(image, data)
            # After the pixels: reading EXIF may decode, and must not hide that decoding fails.
            captured = _captured_at(image)
        flat.thumbnail((_SIGNAL_PIXELS, _SIGNAL_PIXELS))
        luma = flat.convert("L")
        pixels = np.asarray(luma, dtype=np.float64)
        return {
            "mime": mime,
            "width": size[0],
            "height": size[1],
            "captured_at": captured,
            "format": kind,
            "mode": mode,
            "frames": frames,
            "brightness": float(pixels.mean()),
            "contrast": float(pixels.std()),
            "entropy": float(luma.entropy()),
            "sharpness": _laplacian_variance(pixels),
            "phash": str(imagehash.phash(luma)),
            "dhash": str(imagehash.dhash(luma)),
        }

    def segment(self, data: bytes) -> list[Segment]:
        with open_image(data) as image:
            return [Segment(span="full", cost=image.width * image.height)]


def open_image(data: bytes) -> pillow.Image:
    """Open (not yet decode) an image; Pillow's own pixel limit holds.

    Raises:
        SampleError: ``unsupported_format`` or ``decompression_bomb``.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
        try:
            return pillow.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            if _riff_is_short(data):
                raise _broken(error, data) from error
            raise SampleError("unsupported_format", "the bytes have an image's signature, but Pillow reads no image in them") from error
        except pillow.DecompressionBombError as error:
            raise SampleError("decompression_bomb", str(error)) from error
        except _BROKEN as error:
            raise _broken(error, data) from error


def flatten(image: pillow.Image, data: bytes) -> pillow.Image:
    """Decode the first frame to RGB, transparency laid over white.

    Args:
        image: opened from `data`.

    Raises:
        SampleError: ``truncated``, ``decompression_bomb`` or ``decode_error``.
    """
    from PIL import Image as pillow

    try:
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            return _scale_deep(image).convert("RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layered = image.convert("RGBA")
            ground = pillow.new("RGBA", layered.size, "white")
            return pillow.alpha_composite(ground, layered).convert("RGB")
        return image.convert("RGB")
    except pillow.DecompressionBombError as error:
        raise SampleError("decompression_bomb", str(error)) from error
    except _BROKEN as error:
        raise _broken(error, data) from error


def _broken(error: BaseException, data: bytes) -> SampleError:
    """Why Pillow cannot read an image: it is cut off, or damaged inside."""
    marker = next((end for start, end in _END_MARKERS if data.startswith(start)), b"")
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or marker not in data[-64:] or _riff_is_short(data)
    return SampleError("truncated" if cut else "decode_error", f"{type(error).__name__}: {error}")


def _riff_is_short(data: bytes) -> bool:
    """Whether a RIFF container (WebP) declares more bytes than there are."""
    return data.startswith(b"RIFF") and len(data) >= 8 and int.from_bytes(data[4:8], "little") + 8 > len(data)


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


def _laplacian_variance(luma: Any) -> float:
    if min(luma.shape) < 3:
        return 0.0
    inner = luma[1:-1, 1:-1]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(edges.var())


def _captured_at(image: pillow.Image) -> datetime | None:
    """EXIF time of capture; its missing time zone is read as UTC. Damaged EXIF means no time, not a failed image."""
    try:
        exif = image.getexif()
        stamp = exif.get_ifd(_EXIF_IFD).get(_EXIF_TAKEN) or exif.get(_EXIF_CHANGED)
        return datetime.strptime(str(stamp).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # noqa: BLE001 - EXIF parsers raise anything; the time is optional
        return None
