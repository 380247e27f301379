"""Images: decode with Pillow; measure size, exposure, entropy, sharpness and perceptual hashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.media import canaries
from mm_embed_kernels.media.image import read_picture, stated_pixels
from mm_embed_kernels.modalities.base import DECODING_SIGNALS, PREVIEW_SIDE, Modality, Preview, Segment
from mm_embed_kernels.similarity import thumbnails
from mm_embed_kernels.similarity.thumbnails import thumbnail

_SIGNAL_PIXELS = 256
_COLORS = (8, 8)


class Image(Modality):
    """Still and animated raster images (an animation counts as its first frame)."""

    name = "image"
    embedder = "conse"
    hub_embedder = "open_clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    libraries = ("pillow", "pi-heif", "av", "ImageHash", "filetype")
    probe_seconds = 0.02
    probe_version = "9"
    segment_seconds = 0.002
    signals: ClassVar[list[pa.Field]] = [
        *DECODING_SIGNALS,
        field("format", pa.string(), "file format, by the decoder's name"),
        field("mode", pa.string(), "pixel format, by the decoder's name"),
        field("frames", pa.int64(), "frames of an animation, else 1", ge=1),
        field("brightness", pa.float64(), "mean luma, 0 to 255", ge=0, le=255),
        field("contrast", pa.float64(), "standard deviation of luma", ge=0),
        field("entropy", pa.float64(), "Shannon entropy of the luma histogram, bits", ge=0, le=8),
        field(
            "sharpness", pa.float64(), "variance of the Laplacian of luma (Pech-Pacheco et al., 2000)", ge=0
        ),
        field("phash", pa.string(), "64-bit perceptual hash (DCT), hex"),
        field("dhash", pa.string(), "64-bit difference hash, hex"),
        field("colors", pa.binary(), "thumbnail of 8 x 8 pixels, RGB, uint8"),
        field("thumbnail", pa.binary(), "thumbnail of 16 x 16 pixels, RGB, uint8; see `thumbnails`"),
    ]

    packed: ClassVar[dict[str, Callable[[bytes], bool]]] = {
        "colors": lambda data: len(data) == 8 * 8 * 3,
        "thumbnail": lambda data: len(data) == thumbnails.BYTES,
    }

    def canary(self) -> bytes:
        return canaries.picture()

    def claims(self, mime: str) -> bool:
        return mime.startswith("image/") and mime != "image/svg+xml"

    def probe(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: bytes, whole: bool) -> dict[str, Any]:
        """Return the row of a picture; unless it must be `whole`, of the rows that can be decoded."""
        import imagehash
        from PIL.Image import Resampling

        mime = self.require(data)
        picture = read_picture(data, _SIGNAL_PIXELS)
        if picture.defect and whole:
            raise picture.defect
        picture.rgb.thumbnail((_SIGNAL_PIXELS, _SIGNAL_PIXELS))
        luma = picture.rgb.convert("L")
        pixels = np.asarray(luma, dtype=np.float64)
        return {
            "mime": mime,
            "width": picture.width,
            "height": picture.height,
            "captured_at": picture.captured_at,
            "decoder": picture.decoder,
            "read_share": round(picture.read_share, 6),
            "format": picture.kind,
            "mode": picture.mode,
            "frames": picture.frames,
            "brightness": float(pixels.mean()),
            "contrast": float(pixels.std()),
            "entropy": float(luma.entropy()),
            "sharpness": _laplacian_variance(pixels),
            "phash": str(imagehash.phash(luma)),
            "dhash": str(imagehash.dhash(luma)),
            "colors": picture.rgb.resize(_COLORS, Resampling.BOX).tobytes(),
            "thumbnail": thumbnail(picture.rgb),
        }

    def segment(self, data: bytes) -> list[Segment]:
        return [Segment(span="full", cost=stated_pixels(data))]

    def preview(self, data: bytes) -> Preview:
        picture = read_picture(data, PREVIEW_SIDE).rgb
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        return Preview(picture=np.asarray(picture, np.uint8))


def _laplacian_variance(luma: np.ndarray[Any, Any]) -> float:
    """Return the variance of the Laplacian of float64 [height, width]; 0 for less than 3 pixels on a side."""
    if min(luma.shape) < 3:
        return 0.0
    inner = luma[1:-1, 1:-1]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(edges.var())
