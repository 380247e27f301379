"""Modalities, one module each, discovered; may import media, signals, similarity and the rooms below."""

from mm_embed_kernels.media.media_type import Media, head_of, open_media, sniff
from mm_embed_kernels.modalities.base import Modality, Preview, Segment, get, modalities, modality_of

__all__ = [
    "Media",
    "Modality",
    "Preview",
    "Segment",
    "get",
    "head_of",
    "modalities",
    "modality_of",
    "open_media",
    "sniff",
]
