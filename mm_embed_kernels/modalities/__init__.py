"""Modalities, one module each, discovered. May import signals and the rooms below them."""

from mm_embed_kernels.media.media_type import Media, head_of, open_media, sniff
from mm_embed_kernels.modalities.base import (
    Modality,
    Preview,
    Segment,
    get,
    modalities,
    modality_of,
    modality_of_name,
)

__all__ = [
    "Media",
    "Modality",
    "Preview",
    "Segment",
    "get",
    "head_of",
    "modalities",
    "modality_of",
    "modality_of_name",
    "open_media",
    "sniff",
]
